#!/usr/bin/env bash
# Shows that the agent's packages for other machines work: builds them, and has each agent enrol and send
# heartbeats to a collector of this machine:
#
#   aarch64, glibc    the .deb's program, emulated (qemu-user)
#   aarch64, musl     the archive's program, emulated
#   x86_64, glibc     the .deb, installed in a Debian 11 (glibc 2.31), and the .rpm's requirements
#   x86_64, musl      the archive, installed in a root with busybox and no C library at all
#   OpenRC            the archive's script, in a Debian with OpenRC in place of systemd
#
#   packaging/platforms.sh              all of it: about 20 minutes on two cores
#   packaging/platforms.sh run          with the packages that are there
#
# As root, on x86_64 Debian 12. docs/platforms.md has the last result.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

TARGETS=(x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-musl)
cd "$ROOT"
[ "$(id -u)" = 0 ] || fail "roots are made by root only"
target=$(target_dir)
packages=$target/packages
programs=$target/debug
work=$(mktemp -d)
chmod 755 "$work"
collector=
agent=
results=()

cleanup() {
    [ -z "$agent" ] || kill "$agent" 2>/dev/null || true
    [ -z "$collector" ] || kill "$collector" 2>/dev/null || true
    wait
    rm -rf --one-file-system "$work"
}
trap cleanup EXIT

start_collector() {
    mkdir "$work/collector"
    cat >"$work/collector.toml" <<END
data_dir = "$work/collector"
[agents]
listen = "127.0.0.1:17443"
public_url = "https://127.0.0.1:17443"
[web]
listen = "127.0.0.1:18443"
public_url = "https://127.0.0.1:18443"
END
    cat >"$work/fleet.toml" <<END
[[client]]
name = "Test"
[[client.contract]]
name = "Servers"
zone = "UTC"
target_pct = 99.5
[[client.site]]
name = "Site"
contract = "Servers"
END
    local run=("$programs/watchkeep-collector" --config "$work/collector.toml")
    "${run[@]}" init >/dev/null
    "${run[@]}" apply -f "$work/fleet.toml" >/dev/null
    "${run[@]}" serve 2>"$work/collector.log" &
    collector=$!
    token=$("${run[@]}" token create --site Site --uses 20 --bare)
}

# try NAME COMMAND...: enrols, runs and stops an agent that COMMAND starts; its state is in $work/state.
try() {
    local name=$1
    shift
    rm -rf "$work/state"
    mkdir "$work/state"
    "$@" --state-dir "$work/state" sample >"$work/sample"
    grep -q '^mem.total_bytes .*[0-9]' "$work/sample" || fail "$name: no sample"
    "$@" --state-dir "$work/state" enroll "$token" --hostname test >/dev/null
    "$@" --state-dir "$work/state" run 2>"$work/agent.log" &
    agent=$!
    wait_connected "$name" "$work/state"
    kill "$agent"
    wait "$agent" || fail "$name: it did not stop in order"
    agent=
    results+=("$name: sample, enrolment, heartbeats, goodbye")
}

# The agent of a state directory had an answer.
wait_connected() {
    local name=$1 state=$2
    for _ in $(seq 600); do
        if grep -q '"connection": "connected"' "$state/status.json" 2>/dev/null; then return; fi
        sleep 0.1
    done
    cat "$work/agent.log" "$state/status.json" >&2 || true
    fail "$name: it was not connected within a minute"
}

# The program of package $1, unpacked.
unpack_deb() {
    rm -rf "$work/deb"
    dpkg-deb -x "$1" "$work/deb"
    echo "$work/deb/usr/bin/watchkeep-agent"
}

emulated() {
    try "aarch64, glibc 2.17 (emulated)" qemu-aarch64-static -L /usr/aarch64-linux-gnu \
        "$(unpack_deb "$packages"/watchkeep-agent_*_arm64.deb)"
    tar xzf "$packages"/watchkeep-agent-*-linux-aarch64-musl.tar.gz -C "$work"
    try "aarch64, musl (emulated)" qemu-aarch64-static "$work"/watchkeep-agent-*-aarch64-musl/usr/bin/watchkeep-agent
}

# in_root ROOT COMMAND...: with /proc and /sys, and the state directory of `try`. A program, so that what it
# starts can be stopped by its process.
make_in_root() {
    cat >"$work/in_root" <<END
#!/bin/sh
set -eu
root=\$1 state=$work/state
shift
mkdir -p "\$root/proc" "\$root/sys" "\$root\$state"
exec unshare --mount sh -euc 'root=\$1 state=\$2; shift 2
    mount --bind /proc "\$root/proc"; mount --bind /sys "\$root/sys"
    [ ! -d "\$state" ] || mount --bind "\$state" "\$root\$state"
    exec chroot "\$root" "\$@"' sh "\$root" "\$state" "\$@"
END
    chmod 755 "$work/in_root"
}

old_glibc() {
    local root=$work/bullseye
    have mmdebstrap || apt_install mmdebstrap
    mmdebstrap --quiet --variant=minbase --include=adduser,init-system-helpers bullseye "$root" http://deb.debian.org/debian
    cp "$packages"/watchkeep-agent_*_amd64.deb "$root/tmp/"
    "$work/in_root" "$root" sh -c 'dpkg -i /tmp/watchkeep-agent_*.deb' >"$work/dpkg" || fail "$(cat "$work/dpkg")"
    try "x86_64, glibc 2.17 (.deb in Debian 11)" "$work/in_root" "$root" watchkeep-agent
    local needed
    needed=$(rpm -qp --requires "$packages"/watchkeep-agent-*.x86_64.rpm 2>/dev/null | grep -o 'GLIBC_[0-9.]*' | sort -V | tail -n 1)
    at_least GLIBC_2.17 "$needed" || fail "the .rpm requires $needed"
    results+=("x86_64, .rpm: requires $needed")
}

static_musl() {
    local root=$work/musl top
    have busybox || apt_install busybox-static
    mkdir -p "$root/bin" "$root/sbin" "$root/etc/init.d" "$root/tmp" "$root/dev" "$root/var/lib" "$root/usr"
    cp "$(command -v busybox)" "$root/bin/"
    chroot "$root" /bin/busybox --install -s /bin
    printf 'root:x:0:0::/:/bin/sh\n' >"$root/etc/passwd"
    printf 'root:x:0:\nadm:x:4:\n' >"$root/etc/group"
    # Stand-ins for OpenRC's programs, which need a C library: the script itself runs below.
    # shellcheck disable=SC2016 # expanded by the stand-in
    printf '#!/bin/sh\necho "$(basename "$0") $*" >>/tmp/openrc\n' >"$root/sbin/openrc-run"
    chmod 755 "$root/sbin/openrc-run"
    cp "$root/sbin/openrc-run" "$root/sbin/rc-update"
    tar xzf "$packages"/watchkeep-agent-*-linux-x86_64-musl.tar.gz -C "$root/tmp"
    top=$(basename "$root"/tmp/watchkeep-agent-*-musl)
    "$work/in_root" "$root" /bin/sh -euc "export PATH=/bin:/sbin; mknod /dev/null c 1 3; /tmp/$top/install.sh; id watchkeep-agent | grep -q adm"
    grep -q 'rc-update -q add watchkeep-agent default' "$root/tmp/openrc" || fail "musl: the service is not added"
    try "x86_64, musl (archive in a root with busybox alone)" "$work/in_root" "$root" /usr/local/bin/watchkeep-agent
    "$work/in_root" "$root" /bin/sh -euc "export PATH=/bin:/sbin; /tmp/$top/install.sh --purge; ! id watchkeep-agent 2>/dev/null"
    [ ! -e "$root/var/lib/watchkeep-agent" ] || fail "musl: a purge leaves the state"
}

open_rc() {
    local root=$work/openrc top
    mmdebstrap --quiet --variant=minbase --include=openrc bookworm "$root" http://deb.debian.org/debian
    tar xzf "$packages"/watchkeep-agent-*-linux-x86_64-musl.tar.gz -C "$root/tmp"
    top=$(basename "$root"/tmp/watchkeep-agent-*-musl)
    rm -rf "$work/state"
    # The first start of OpenRC's services makes /run/openrc.
    "$work/in_root" "$root" sh -euc "
        rm -rf /etc/systemd/system
        mkdir -p /run/openrc; touch /run/openrc/softlevel
        /tmp/$top/install.sh
        ! rc-service watchkeep-agent start
        /usr/local/bin/watchkeep-agent enroll $token --hostname test
        rc-service watchkeep-agent status
        for n in \$(seq 100); do
            if grep -q '\"connection\": \"connected\"' /var/lib/watchkeep-agent/status.json; then break; fi
            sleep 0.1
        done
        /usr/local/bin/watchkeep-agent status
        find /var/lib/watchkeep-agent ! -user watchkeep-agent | grep . && exit 1
        rc-service watchkeep-agent reload
        rc-service watchkeep-agent stop
        ! rc-service watchkeep-agent status
    " >"$work/openrc.log" 2>&1 || { cat "$work/openrc.log" && fail "OpenRC"; }
    results+=("OpenRC (Debian's 0.45): enrolment as root starts it, reload, stop")
}

case ${1:-} in
"") packaging/build.sh --agent "${TARGETS[@]}" ;;
run) ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    exit
    ;;
esac
[ -x "$programs/watchkeep-collector" ] || cargo build --locked --workspace --all-targets
have rpm || apt_install rpm
make_in_root
start_collector
emulated
old_glibc
static_musl
open_rc
printf '%s\n' "${results[@]}"
