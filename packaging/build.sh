#!/usr/bin/env bash
# Builds packages into target/packages/: .deb, .rpm, and an archive with an install script for any
# other Linux with systemd or OpenRC.
#
#   packaging/build.sh                       agent and collector, with the C library of this machine or a
#                                            newer one; the agent built for size (profile dist)
#   packaging/build.sh --profile PROFILE     both from one profile, as CI does with dev
#   packaging/build.sh --agent TARGET...     the agent for other machines, beside what is there already:
#                                            x86_64-unknown-linux-gnu and aarch64-unknown-linux-gnu for
#                                            glibc 2.17 or newer, x86_64-unknown-linux-musl and
#                                            aarch64-unknown-linux-musl static, as an archive alone
#
# docs/platforms.md says which package is for which distribution.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

# The oldest glibc that packages of --agent run with: that of RHEL 7.
OLDEST_GLIBC=2.17

agent_profile=dist
collector_profile=dist-collector
targets=()
case ${1:-} in
"") ;;
--profile) agent_profile=${2:?name a profile} collector_profile=$2 ;;
--agent)
    shift
    targets=("$@")
    [ ${#targets[@]} -gt 0 ] || fail "name a target"
    agent_profile=${WATCHKEEP_AGENT_PROFILE:-dist}
    ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    [ "$1" = --help ] && exit
    exit 2
    ;;
esac

cd "$ROOT"
have dpkg-deb || fail "dpkg-deb is missing: packages are built on Debian or Ubuntu"
have rpmbuild || apt_install rpm
need_compiler
need_node
need_rust
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target=$(target_dir)
out=$target/packages

# The newest version of the C library that program $1 uses.
libc_of() {
    readelf --version-info --wide "$1" | grep -o 'GLIBC_2\.[0-9.]*' | sort -uV | tail -n 1 | sed 's/GLIBC_//'
}

# Everything about one package; the functions below read these.
describe() {
    name=$1 program=$2 user=$3 state=$4 groups=${5:-}
    short=${name#watchkeep-}
    config=/etc/watchkeep/$short.toml
    stage=$target/packages/$name
    case $target_triple in
    *-musl) libc=static ;;
    *) libc=$(libc_of "$program") ;;
    esac
    machine=${target_triple%%-*}
    case $machine in
    x86_64) architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *) architecture=$(dpkg --print-architecture) ;;
    esac
    # By zig it is linked in.
    libgcc=
    if readelf --dynamic "$program" | grep -q 'libgcc_s'; then libgcc=", libgcc-s1"; fi
    case $short in
    agent) next="watchkeep-agent enroll TOKEN" ;;
    *) next="runuser -u $user -- watchkeep-collector init" ;;
    esac
}

# Runs the program here, though it may be for another processor.
run_program() {
    if [ "$machine" = "$(uname -m)" ]; then
        "$program" "$@"
    else
        "qemu-$machine-static" -L "/usr/$machine-linux-gnu" "$program" "$@"
    fi
}

# fill FILE: its text with the package's names in it.
fill() {
    sed -e "s|@PACKAGE@|$name|g; s|@VERSION@|$version|g; s|@USER@|$user|g; s|@STATE@|$state|g" \
        -e "s|@CONFIG@|$config|g; s|@SIZE@|${size:-}|g; s|@GROUPS@|$groups|g; s|@LIBC@|$libc|g" \
        -e "s|@ARCHITECTURE@|$architecture|g; s|@MACHINE@|$machine|g; s|@LIBGCC@|$libgcc|g; s|@NEXT@|$next|g" "$1"
}

# What every kind of package holds, as it lies on the machine.
lay_out() {
    local page
    rm -rf "$stage"
    install -D -m 755 "$program" "$stage/usr/bin/$name"
    # Those for other machines are built without symbols.
    if [ "$target_triple" = "$here" ]; then strip "$stage/usr/bin/$name"; fi
    install -D -m 644 "packaging/systemd/$name.service" "$stage/usr/lib/systemd/system/$name.service"
    install -D -m 644 "config/$short.example.toml" "$stage$config"
    run_program manual "$stage/manual"
    for page in "$stage"/manual/*.1; do
        gzip -9n "$page"
        install -D -m 644 "$page.gz" "$stage/usr/share/man/man1/$(basename "$page").gz"
    done
    install -D -m 644 "$stage/manual/$name.bash" "$stage/usr/share/bash-completion/completions/$name"
    install -D -m 644 "$stage/manual/_$name" "$stage/usr/share/zsh/vendor-completions/_$name"
    install -D -m 644 "$stage/manual/$name.fish" "$stage/usr/share/fish/vendor_completions.d/$name.fish"
    rm -rf "$stage/manual"
    if [ "$name" = watchkeep-agent ]; then
        install -D -m 644 packaging/systemd/read-all-logs.conf "$stage/usr/share/doc/$name/examples/read-all-logs.conf"
    fi
    if [ "$name" = watchkeep-collector ]; then
        install -D -m 644 config/rules/default.toml "$stage/usr/share/doc/$name/examples/rules.toml"
        install -D -m 644 config/fleet.example.toml "$stage/usr/share/doc/$name/examples/fleet.toml"
    fi
    # A checkout may be made with any umask.
    find "$stage" -type d -exec chmod 755 {} +
}

make_tarball() {
    local top
    top=$name-$version-linux-$machine
    if [ "$libc" = static ]; then top=$top-musl; fi
    if [ -e "packaging/openrc/$name" ]; then
        install -D -m 755 "packaging/openrc/$name" "$stage/etc/init.d/$name"
    fi
    fill packaging/install.sh >"$stage/install.sh"
    chmod 755 "$stage/install.sh"
    cp CHANGELOG.md "$stage/"
    chmod 644 "$stage/CHANGELOG.md"
    tar --create --file - --sort=name --owner=root:0 --group=root:0 \
        --mtime="@$SOURCE_DATE_EPOCH" --transform "s|^\.|$top|" -C "$stage" . |
        gzip -9n >"$out/$top.tar.gz"
    rm -rf "$stage/install.sh" "$stage/CHANGELOG.md" "$stage/etc/init.d"
}

make_rpm() {
    local top=$target/packages/rpm summary
    summary=$(sed -n 's/^Description: //p' "packaging/deb/$name.control")
    mkdir -p "$top"
    {
        printf '%%global __os_install_post %%{nil}\n%%global _build_id_links none\n'
        fill packaging/rpm.spec.in | sed "s|@SUMMARY@|$summary|" |
            sed "/@DESCRIPTION@/{
                r /dev/fd/3
                d
            }" 3< <(sed -n '/^Description:/,$ s/^ //p' "packaging/deb/$name.control")
    } >"$top/$name.spec"
    # rpmbuild empties the directory that it packs.
    cp -a "$stage" "$top/root"
    install -D -m 644 packaging/deb/copyright "$top/root/usr/share/doc/$name/copyright"
    install -d -m 700 "$top/root$state"
    install -d "$top/root/usr/lib/sysusers.d"
    echo "u $user - \"Watchkeep\" $state /sbin/nologin" >"$top/root/usr/lib/sysusers.d/$name.conf"
    rpmbuild --quiet -bb --target "$machine" --define "_topdir $top/work" --define "_rpmdir $top" \
        --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" --define "_binary_payload w2.xzdio" \
        --define "layout $top/root" "$top/$name.spec"
    mv "$top/$machine/"*.rpm "$out/"
    rm -rf "$top"
}

make_deb() {
    local size file from
    install -D -m 644 packaging/deb/copyright "$stage/usr/share/doc/$name/copyright"
    gzip -9n <CHANGELOG.md >"$stage/usr/share/doc/$name/changelog.gz"
    chmod 644 "$stage/usr/share/doc/$name/changelog.gz"
    install -d "$stage/DEBIAN"
    echo "$config" >"$stage/DEBIAN/conffiles"
    size=$(du -sk --exclude=DEBIAN "$stage" | cut -f1)
    for file in control postinst prerm postrm; do
        from=packaging/deb/$file.in
        [ $file != control ] || from=packaging/deb/$name.control
        fill "$from" >"$stage/DEBIAN/$file"
        chmod 755 "$stage/DEBIAN/$file"
    done
    chmod 644 "$stage/DEBIAN/control" "$stage/DEBIAN/conffiles"
    (cd "$stage" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    find "$stage" -type d -exec chmod 755 {} +
    dpkg-deb --root-owner-group -Zxz -z3 --build "$stage" "$out" >/dev/null
}

# package NAME PROGRAM USER STATE [GROUPS]: every kind of package of one program.
package() {
    describe "$@"
    lay_out
    make_tarball
    # A static program is for distributions that have neither.
    if [ "$libc" != static ]; then
        make_rpm
        make_deb
    fi
    rm -rf "$stage"
}

package_agent() {
    package watchkeep-agent "$1" watchkeep-agent /var/lib/watchkeep-agent "adm systemd-journal"
}

# The same programs of the same commit give the same packages, byte by byte. Not before the build:
# that would compile all C code again where it was compiled without.
begin_packing() {
    : "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
    export SOURCE_DATE_EPOCH
    say "Packing"
    mkdir -p "$out"
}

end_packing() {
    (
        cd "$out"
        shopt -s nullglob
        files=(*.deb *.rpm *.tar.gz)
        sha256sum -- "${files[@]}" >SHA256SUMS
        ls -l -- "${files[@]}"
    )
}

# The agent for another machine: its program's path in $agent.
build_for() {
    local linked_for=$target_triple
    need_rust_target "$target_triple"
    case $target_triple in
    *-gnu) linked_for=$target_triple.$OLDEST_GLIBC ;;
    esac
    if [ "${target_triple%%-*}" != "$(uname -m)" ]; then
        have "qemu-${target_triple%%-*}-static" || apt_install qemu-user-static
        [ -d /usr/aarch64-linux-gnu/lib ] || apt_install libc6-arm64-cross
    fi
    say "Building the agent for $linked_for"
    cargo zigbuild --profile "$agent_profile" --locked -p watchkeep-agent --target "$linked_for"
    agent=$target/$target_triple/${agent_profile/#dev/debug}/watchkeep-agent
    case $target_triple in
    *-gnu) at_least "$OLDEST_GLIBC" "$(libc_of "$agent")" || fail "it needs a glibc newer than $OLDEST_GLIBC" ;;
    *) ! readelf --dynamic "$agent" | grep -q NEEDED || fail "it is not static" ;;
    esac
}

here=$(rustc -vV | sed -n 's/^host: //p')
if [ ${#targets[@]} -gt 0 ]; then
    need_zig
    for target_triple in "${targets[@]}"; do
        build_for
        # Not stripped with this machine's tools.
        here=
        begin_packing
        package_agent "$agent"
    done
    end_packing
    exit
fi
target_triple=$here

say "Building the programs"
if [ "$agent_profile $collector_profile" = "dev dev" ]; then
    # As the test suite builds them, with the features that all members want: nothing is built again.
    cargo build --locked --workspace --all-targets
elif [ "$agent_profile" = "$collector_profile" ]; then
    cargo build --profile "$agent_profile" --locked -p watchkeep-agent -p watchkeep-collector
else
    cargo build --profile "$agent_profile" --locked -p watchkeep-agent
    cargo build --profile "$collector_profile" --locked -p watchkeep-collector
fi
# The profile dev builds into debug/.
agent=$target/${agent_profile/#dev/debug}/watchkeep-agent
collector=$target/${collector_profile/#dev/debug}/watchkeep-collector

rm -rf "$out"
begin_packing
package_agent "$agent"
package watchkeep-collector "$collector" watchkeep /var/lib/watchkeep
end_packing
