#!/usr/bin/env bash
# Makes the root of the machines that the machine tests boot, and that the packages are checked in:
# this machine's Debian or Ubuntu with systemd, and rpm to install the other kind of package with.
# Kept between runs; made anew when this script changed. As root.
#
#   tests/machine/root.sh DIRECTORY
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/../../packaging/lib.sh"

root=${1:?name a directory}
made_by=$root.made-by
this=$(sha256sum <"$0")
[ "$(cat "$made_by" 2>/dev/null)" != "$this" ] || exit 0
[ "$(id -u)" = 0 ] || fail "machines are made and booted by root only"
have mmdebstrap || apt_install mmdebstrap
rm -rf "$root" "$made_by"
mkdir -p "$(dirname "$root")"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Without waiting for the disk at each file: a root that was not finished is thrown away.
mmdebstrap --quiet --variant=minbase \
    --include=adduser,dbus,init-system-helpers,procps,rpm,systemd,systemd-sysv \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$root" >"$log" 2>&1 || {
    cat "$log" >&2
    fail "mmdebstrap could not make a machine"
}
# Each machine draws its own at its first boot.
: >"$root/etc/machine-id"
# The journal outlives a boot.
mkdir -p "$root/var/log/journal"
# Where servers are installed without being started, this says so; these are started.
rm -f "$root/usr/sbin/policy-rc.d"
echo "$this" >"$made_by"
