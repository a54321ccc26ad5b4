#!/usr/bin/env bash
# Builds the Debian packages of agent and collector into target/packages/.
#
#   packaging/build.sh                     what is shipped: the agent built for size (profile dist)
#   packaging/build.sh --profile PROFILE   both from one profile, as CI does with release
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
need_compiler
need_node
need_rust
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
target=$(target_dir)
out=$target/packages
# The same programs of the same commit give the same packages, byte by byte.
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct 2>/dev/null || date +%s)}"
export SOURCE_DATE_EPOCH

# The newest version of the C library that program $1 uses.
libc_of() {
    readelf --version-info --wide "$1" | grep -o 'GLIBC_2\.[0-9.]*' | sort -uV | tail -n 1 | sed 's/GLIBC_//'
}

# package NAME PROGRAM USER STATE: lays the files out and packs them.
package() {
    local name=$1 program=$2 user=$3 state=$4
    local stage=$target/packages/$name config=/etc/watchkeep/${1#watchkeep-}.toml
    rm -rf "$stage"
    install -D -m 755 "$program" "$stage/usr/bin/$name"
    strip "$stage/usr/bin/$name"
    install -D -m 644 "packaging/systemd/$name.service" "$stage/usr/lib/systemd/system/$name.service"
    install -D -m 644 "config/${name#watchkeep-}.example.toml" "$stage$config"
    install -D -m 644 packaging/deb/copyright "$stage/usr/share/doc/$name/copyright"
    gzip -9n <CHANGELOG.md >"$stage/usr/share/doc/$name/changelog.gz"
    chmod 644 "$stage/usr/share/doc/$name/changelog.gz"
    if [ "$name" = watchkeep-collector ]; then
        install -D -m 644 config/rules/default.toml "$stage/usr/share/doc/$name/examples/rules.toml"
        install -D -m 644 config/fleet.example.toml "$stage/usr/share/doc/$name/examples/fleet.toml"
    fi

    install -d "$stage/DEBIAN"
    echo "$config" >"$stage/DEBIAN/conffiles"
    local size file
    size=$(du -sk --exclude=DEBIAN "$stage" | cut -f1)
    for file in control postinst prerm postrm; do
        local from=packaging/deb/$file.in
        [ $file != control ] || from=packaging/deb/$name.control
        sed -e "s|@PACKAGE@|$name|g; s|@VERSION@|$version|g; s|@USER@|$user|g; s|@STATE@|$state|g" \
            -e "s|@CONFIG@|$config|g; s|@SIZE@|$size|g; s|@ARCHITECTURE@|$(dpkg --print-architecture)|g" \
            -e "s|@LIBC@|$(libc_of "$program")|g" "$from" >"$stage/DEBIAN/$file"
        chmod 755 "$stage/DEBIAN/$file"
    done
    chmod 644 "$stage/DEBIAN/control" "$stage/DEBIAN/conffiles"
    (cd "$stage" && find usr etc -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    # A checkout may be made with any umask.
    find "$stage" -type d -exec chmod 755 {} +
    dpkg-deb --root-owner-group -Zxz -z6 --build "$stage" "$out" >/dev/null
    rm -rf "$stage"
}

say "Building the programs"
if [ "$agent_profile" = "$collector_profile" ]; then
    cargo build --profile "$agent_profile" --locked -p watchkeep-agent -p watchkeep-collector
else
    cargo build --profile "$agent_profile" --locked -p watchkeep-agent
    cargo build --profile "$collector_profile" --locked -p watchkeep-collector
fi
# The profile dev builds into debug/.
agent=$target/${agent_profile/#dev/debug}/watchkeep-agent
collector=$target/${collector_profile/#dev/debug}/watchkeep-collector

say "Packing"
rm -rf "$out"
mkdir -p "$out"
package watchkeep-agent "$agent" watchkeep-agent /var/lib/watchkeep-agent
package watchkeep-collector "$collector" watchkeep /var/lib/watchkeep
(cd "$out" && sha256sum -- *.deb >SHA256SUMS && ls -l -- *.deb)
