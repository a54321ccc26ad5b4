#!/usr/bin/env bash
# Builds the packages of agent and collector into target/packages/: .deb, .rpm, and an archive with
# an install script for any other Linux with systemd.
#
#   packaging/build.sh                     what is shipped: the agent built for size (profile dist)
#   packaging/build.sh --profile PROFILE   both from one profile, as CI does with dev
#
# The packages need the C library of the machine that builds them, or a newer one: build on the
# oldest distribution that they shall run on.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

agent_profile=dist
collector_profile=dist-collector
case ${1:-} in
"") ;;
--profile) agent_profile=${2:?name a profile} collector_profile=$2 ;;
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
    name=$1 program=$2 user=$3 state=$4
    short=${name#watchkeep-}
    config=/etc/watchkeep/$short.toml
    stage=$target/packages/$name
    libc=$(libc_of "$program")
}

# fill FILE: its text with the package's names in it.
fill() {
    sed -e "s|@PACKAGE@|$name|g; s|@VERSION@|$version|g; s|@USER@|$user|g; s|@STATE@|$state|g" \
        -e "s|@CONFIG@|$config|g; s|@SIZE@|${size:-}|g; s|@LIBC@|$libc|g" \
        -e "s|@ARCHITECTURE@|$(dpkg --print-architecture)|g; s|@MACHINE@|$(uname -m)|g" "$1"
}

# What every kind of package holds, as it lies on the machine.
lay_out() {
    local page
    rm -rf "$stage"
    install -D -m 755 "$program" "$stage/usr/bin/$name"
    strip "$stage/usr/bin/$name"
    install -D -m 644 "packaging/systemd/$name.service" "$stage/usr/lib/systemd/system/$name.service"
    install -D -m 644 "config/$short.example.toml" "$stage$config"
    "$program" manual "$stage/manual"
    for page in "$stage"/manual/*.1; do
        gzip -9n "$page"
        install -D -m 644 "$page.gz" "$stage/usr/share/man/man1/$(basename "$page").gz"
    done
    install -D -m 644 "$stage/manual/$name.bash" "$stage/usr/share/bash-completion/completions/$name"
    install -D -m 644 "$stage/manual/_$name" "$stage/usr/share/zsh/vendor-completions/_$name"
    install -D -m 644 "$stage/manual/$name.fish" "$stage/usr/share/fish/vendor_completions.d/$name.fish"
    rm -rf "$stage/manual"
    if [ "$name" = watchkeep-collector ]; then
        install -D -m 644 config/rules/default.toml "$stage/usr/share/doc/$name/examples/rules.toml"
        install -D -m 644 config/fleet.example.toml "$stage/usr/share/doc/$name/examples/fleet.toml"
    fi
    # A checkout may be made with any umask.
    find "$stage" -type d -exec chmod 755 {} +
}

make_tarball() {
    local top
    top=$name-$version-linux-$(uname -m)
    fill packaging/install.sh >"$stage/install.sh"
    chmod 755 "$stage/install.sh"
    cp CHANGELOG.md "$stage/"
    chmod 644 "$stage/CHANGELOG.md"
    tar --create --file - --sort=name --owner=root:0 --group=root:0 \
        --mtime="@$SOURCE_DATE_EPOCH" --transform "s|^\.|$top|" -C "$stage" . |
        gzip -9n >"$out/$top.tar.gz"
    rm "$stage/install.sh" "$stage/CHANGELOG.md"
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
    rpmbuild --quiet -bb --target "$(uname -m)" --define "_topdir $top/work" --define "_rpmdir $top" \
        --define "_buildhost localhost" --define "use_source_date_epoch_as_buildtime 1" \
        --define "clamp_mtime_to_source_date_epoch 1" --define "_binary_payload w2.xzdio" \
        --define "layout $top/root" "$top/$name.spec"
    mv "$top/$(uname -m)/"*.rpm "$out/"
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

# package NAME PROGRAM USER STATE: every kind of package of one program.
package() {
    describe "$@"
    lay_out
    make_tarball
    make_rpm
    make_deb
    rm -rf "$stage"
}

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

# The same programs of the same commit give the same packages, byte by byte. Not before the build:
# that would compile all C code again where it was compiled without.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH
say "Packing"
rm -rf "$out"
mkdir -p "$out"
package watchkeep-agent "$agent" watchkeep-agent /var/lib/watchkeep-agent
package watchkeep-collector "$collector" watchkeep /var/lib/watchkeep
(cd "$out" && sha256sum -- *.deb *.rpm *.tar.gz >SHA256SUMS && ls -l -- *.deb *.rpm *.tar.gz)
