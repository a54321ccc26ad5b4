#!/usr/bin/env bash
# Checks the packages in target/packages/: what is in them, who owns it, whether the programs run
# and the settings are valid, and whether the units are as strict as promised. As root it also
# installs, upgrades, removes and purges them in a small Debian of its own, made by mmdebstrap.
#
#   packaging/check.sh
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

# systemd-analyze's exposure, in tenths: 0 is best, a unit without any restriction has 96.
WORST_EXPOSURE=25

cd "$ROOT"
packages=$(target_dir)/packages
work=$(mktemp -d)
problems=0
trap 'rm -rf "$work"' EXIT

problem() {
    echo "packages: $*" >&2
    problems=$((problems + 1))
}

# expect NAME PATH MODE: the package has this file, owned by root.
expect() {
    awk -v path=".$2" '$NF == path {print $1, $2}' "$work/$1.list" | grep -qxF -e "$3 root/root" ||
        problem "$1: $2 should be there as $3 root/root"
}

check_files() {
    local name=$1 short=${1#watchkeep-} deb field
    deb=$(echo "$packages/$name"_*.deb)
    [ -f "$deb" ] || fail "there is no package of $name in $packages: run packaging/build.sh"
    dpkg-deb -c "$deb" >"$work/$name.list"
    expect "$name" "/usr/bin/$name" -rwxr-xr-x
    expect "$name" "/usr/lib/systemd/system/$name.service" -rw-r--r--
    expect "$name" "/etc/watchkeep/$short.toml" -rw-r--r--
    expect "$name" "/usr/share/doc/$name/copyright" -rw-r--r--
    expect "$name" "/usr/share/doc/$name/changelog.gz" -rw-r--r--
    for field in Version Depends Description Maintainer; do
        [ -n "$(dpkg-deb -f "$deb" $field)" ] || problem "$name: its $field is empty"
    done
    grep -q '@[A-Z]*@' <(dpkg-deb -f "$deb") && problem "$name: a placeholder is left in control"
    dpkg-deb -R "$deb" "$work/$name"
    grep -rnE '@[A-Z]+@' "$work/$name/DEBIAN" && problem "$name: a placeholder is left"
    [ "$(cat "$work/$name/DEBIAN/conffiles")" = "/etc/watchkeep/$short.toml" ] ||
        problem "$name: its settings are no conffile"
    grep -q "^MemoryDenyWriteExecute=yes" "$work/$name/usr/lib/systemd/system/$name.service" ||
        problem "$name: its unit is not hardened"
}

check_program() {
    local name=$1 config="$work/$1/etc/watchkeep/${1#watchkeep-}.toml"
    "$work/$name/usr/bin/$name" --version >/dev/null || problem "$name: the program does not run"
    "$work/$name/usr/bin/$name" --config "$config" check-config >/dev/null ||
        problem "$name: the settings that it ships are not valid"
}

check_unit() {
    local name=$1 unit="$work/$1/usr/lib/systemd/system/$1.service"
    have systemd-analyze || apt_install systemd
    systemd-analyze security --offline=yes --no-pager --threshold="$WORST_EXPOSURE" "$unit" \
        >"$work/exposure" || problem "$name: the unit is less strict than $WORST_EXPOSURE tenths"
    tail -n 1 "$work/exposure"
}

# --- A machine of its own ---

# In a mount namespace of its own, so that nothing stays mounted.
in_machine() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount sh -c 'mount --bind /proc "$0/proc" && exec chroot "$0" "$@"' "$work/machine" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# expect_machine WHAT TEST...: a test(1) in the machine.
expect_machine() {
    local what=$1
    shift
    in_machine test "$@" || problem "$what"
}

check_life() {
    have mmdebstrap || apt_install mmdebstrap
    mmdebstrap --quiet --variant=minbase --include=adduser,init-system-helpers,systemd \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/machine" >"$work/mmdebstrap.log" 2>&1 || {
        cat "$work/mmdebstrap.log"
        problem "mmdebstrap could not make a machine"
        return
    }
    cp "$packages"/*.deb "$work/machine/tmp/"
    in_machine sh -c 'dpkg -i /tmp/*.deb' >"$work/dpkg" 2>&1 || { cat "$work/dpkg" && problem "they don't install"; }
    expect_machine "the agent's state is not private" "$(in_machine stat -c %U:%a /var/lib/watchkeep-agent)" = watchkeep-agent:700
    expect_machine "the collector's state is not private" "$(in_machine stat -c %U:%a /var/lib/watchkeep)" = watchkeep:700
    expect_machine "the collector's settings are for all to read" "$(in_machine stat -c %G:%a /etc/watchkeep/collector.toml)" = watchkeep:640
    local link=/etc/systemd/system/multi-user.target.wants
    expect_machine "the agent is not enabled" -L $link/watchkeep-agent.service
    expect_machine "the collector is not enabled" -L $link/watchkeep-collector.service
    in_machine setpriv --reuid watchkeep-agent --regid watchkeep-agent --init-groups \
        watchkeep-agent sample --json >/dev/null || problem "the agent does not measure as its own user"
    in_machine sh -c 'dpkg -i /tmp/*.deb' >/dev/null 2>&1 || problem "they don't install over themselves"
    in_machine dpkg --remove watchkeep-agent watchkeep-collector >/dev/null 2>&1 || problem "they can't be removed"
    expect_machine "removal takes the settings away" -e /etc/watchkeep/agent.toml
    expect_machine "removal takes the state away" -d /var/lib/watchkeep
    in_machine dpkg --purge watchkeep-agent watchkeep-collector >/dev/null 2>&1 || problem "they can't be purged"
    local path
    for path in /etc/watchkeep /var/lib/watchkeep /var/lib/watchkeep-agent $link/watchkeep-agent.service; do
        expect_machine "a purge leaves $path" ! -e "$path"
    done
    in_machine getent passwd watchkeep watchkeep-agent && problem "a purge leaves its users"
    return 0
}

for name in watchkeep-agent watchkeep-collector; do
    check_files $name
    check_program $name
    check_unit $name
done
if [ "$(id -u)" = 0 ]; then
    check_life
else
    echo "packages: not installed in a machine of their own: that needs root"
fi
[ "$problems" = 0 ] || fail "$problems problems with the packages"
say "The packages are right"
