#!/usr/bin/env bash
# Checks the packages in target/packages/: what is in them, who owns it, whether the programs run
# and the settings are valid, and whether the units are as strict as promised. As root it also
# installs, upgrades, removes and purges them in a small Debian of its own (tests/machine/root.sh).
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
    expect "$name" "/usr/share/man/man1/$name.1.gz" -rw-r--r--
    expect "$name" "/usr/share/bash-completion/completions/$name" -rw-r--r--
    expect "$name" "/usr/share/zsh/vendor-completions/_$name" -rw-r--r--
    expect "$name" "/usr/share/fish/vendor_completions.d/$name.fish" -rw-r--r--
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

# new_machine: it is what the root is, until something is changed in it.
new_machine() {
    rm -rf "$work/machine"
    mkdir -p "$work/machine/upper/tmp" "$work/machine/work" "$work/machine/root"
    chmod 1777 "$work/machine/upper/tmp"
}

# In a mount namespace of its own, so that nothing stays mounted.
in_machine() {
    # shellcheck disable=SC2016 # expanded by the inner shell
    unshare --mount sh -euc 'root=$1 dir=$2; shift 2
        mount -t overlay overlay -o "lowerdir=$root,upperdir=$dir/upper,workdir=$dir/work" "$dir/root"
        mount --bind /proc "$dir/root/proc"
        exec chroot "$dir/root" "$@"' sh "$(target_dir)/machine/root" "$work/machine" \
        env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 "$@"
}

# expect_machine WHAT TEST...: a test(1) in the machine.
expect_machine() {
    local what=$1
    shift
    in_machine test "$@" || problem "$what"
}

# The owners, and the units: the same whatever installed them.
check_installed() {
    expect_machine "the agent's state is not private" "$(in_machine stat -c %U:%a /var/lib/watchkeep-agent)" = watchkeep-agent:700
    expect_machine "the collector's state is not private" "$(in_machine stat -c %U:%a /var/lib/watchkeep)" = watchkeep:700
    expect_machine "the collector's settings are for all to read" "$(in_machine stat -c %G:%a /etc/watchkeep/collector.toml)" = watchkeep:640
    expect_machine "the agent is not enabled" -L $link/watchkeep-agent.service
    expect_machine "the collector is not enabled" -L $link/watchkeep-collector.service
    in_machine setpriv --reuid watchkeep-agent --regid watchkeep-agent --init-groups \
        watchkeep-agent sample --json >/dev/null || problem "the agent does not measure as its own user"
}

link=/etc/systemd/system/multi-user.target.wants

check_deb_life() {
    new_machine
    cp "$packages"/*.deb "$work/machine/upper/tmp/"
    in_machine sh -c 'dpkg -i /tmp/*.deb' >"$work/dpkg" 2>&1 || { cat "$work/dpkg" && problem "they don't install"; }
    check_installed
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

# rpm has no purge: settings that were changed and state stay, as on Fedora.
check_rpm_life() {
    new_machine
    cp "$packages"/*.rpm "$work/machine/upper/tmp/"
    in_machine sh -c 'rpm -i --nodeps /tmp/*.rpm' >"$work/rpm" 2>&1 || { cat "$work/rpm" && problem "the rpms don't install"; }
    check_installed
    in_machine rpm -V --nodeps watchkeep-agent watchkeep-collector || problem "what the rpms installed is not what is in them"
    in_machine sh -c 'echo "# mine" >>/etc/watchkeep/agent.toml; rpm -U --force --nodeps /tmp/*.rpm' >/dev/null ||
        problem "the rpms don't install over themselves"
    in_machine grep -q '^# mine$' /etc/watchkeep/agent.toml || problem "an rpm's upgrade takes changed settings away"
    in_machine sh -c 'echo kept >/var/lib/watchkeep/kept; rpm -e watchkeep-agent watchkeep-collector' >/dev/null 2>&1 ||
        problem "the rpms can't be removed"
    expect_machine "the rpm's removal takes the state away" -e /var/lib/watchkeep/kept
    expect_machine "the rpm's removal takes changed settings away" -e /etc/watchkeep/agent.toml.rpmsave
    local path
    for path in /usr/bin/watchkeep-agent /usr/bin/watchkeep-collector $link/watchkeep-agent.service; do
        expect_machine "the rpm's removal leaves $path" ! -e "$path"
    done
}

check_tarball() {
    local name=$1 top
    top=$(basename "$packages/$name"-*.tar.gz .tar.gz)
    new_machine
    cp "$packages/$top.tar.gz" "$work/machine/upper/tmp/"
    in_machine sh -euc "cd /tmp; tar xf $top.tar.gz; $top/install.sh" >"$work/tarball" 2>&1 ||
        { cat "$work/tarball" && problem "$name: the archive does not install"; }
    in_machine "/usr/local/bin/$name" --version >/dev/null || problem "$name: the archive's program does not run"
    expect_machine "$name: the archive's unit is not enabled" -L "$link/$name.service"
    in_machine sh -euc "echo '# mine' >>/etc/watchkeep/${name#watchkeep-}.toml; /tmp/$top/install.sh" >/dev/null ||
        problem "$name: the archive does not install over itself"
    in_machine grep -q '^# mine$' "/etc/watchkeep/${name#watchkeep-}.toml" ||
        problem "$name: the archive's upgrade takes settings away"
    in_machine "/tmp/$top/install.sh" --purge >/dev/null 2>&1 || problem "$name: the archive does not purge"
    local left
    left=$(in_machine find /etc /usr /var/lib -name '*watchkeep*')
    [ -z "$left" ] || problem "$name: the archive's purge leaves $left"
}

# What the distributions' own checkers call an error. Not one: how a package is signed and where it
# would be published, and that programs are not linked for every machine ever made.
check_rpmlint() {
    have rpmlint || apt_install rpmlint
    rpmlint --ignore-unused-rpmlintrc "$packages"/*.rpm >"$work/rpmlint" 2>&1 || true
    grep ' E: ' "$work/rpmlint" | grep -vE 'no-signature|non-standard-uid|non-standard-gid|non-readable|non-standard-dir-perm|no-packager-tag|no-group-tag|no-changelogname-tag' &&
        problem "rpmlint finds errors"
    return 0
}

for name in watchkeep-agent watchkeep-collector; do
    check_files $name
    check_program $name
    check_unit $name
done
check_rpmlint
if [ "$(id -u)" = 0 ]; then
    tests/machine/root.sh "$(target_dir)/machine/root"
    check_deb_life
    check_rpm_life
    check_tarball watchkeep-agent
    check_tarball watchkeep-collector
else
    echo "packages: not installed in a machine of their own: that needs root"
fi
[ "$problems" = 0 ] || fail "$problems problems with the packages"
say "The packages are right"
