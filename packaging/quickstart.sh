#!/usr/bin/env bash
# From a fresh Debian or Ubuntu machine and this checkout to a running Watchkeep that watches the
# machine itself: installs what is missing, builds, and runs `watchkeep-collector quickstart`, to
# which all arguments are passed on. Asks nothing; run again, it continues. Needs root
# or sudo, and only if something is missing.
#
#   packaging/quickstart.sh [--agent-port PORT] [--web-port PORT] [--listen ADDRESS] [--reset-password]
#
# Data is kept in $WATCHKEEP_DATA_DIR, by default ~/.local/share/watchkeep.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

# What one build of both programs takes, KiB.
BUILD_SPACE=$((3 * 1024 * 1024))

case ${1:-} in
-h | --help)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    exit
    ;;
esac

data=${WATCHKEEP_DATA_DIR:-${HOME:?HOME is not set: set WATCHKEEP_DATA_DIR}/.local/share/watchkeep}
case $data in /*) ;; *) data=$PWD/$data ;; esac
# The programs take variables of this form as settings.
unset WATCHKEEP_DATA_DIR

cd "$ROOT"
# Agent and browser find the collector by this name; bare containers may lack it.
getent hosts localhost >/dev/null ||
    fail "this machine does not know the name localhost: add the line '127.0.0.1 localhost' to /etc/hosts"
need_compiler
need_node
need_zones
need_rust
target=$(target_dir)
mkdir -p "$target"
if [ ! -x "$target/release/watchkeep-collector" ]; then
    [ "$(df -Pk "$target" | awk 'NR == 2 {print $4}')" -ge "$BUILD_SPACE" ] ||
        fail "the build needs 3 GB of space in $target"
    say "Building with $(rustc --version); the first time this takes minutes"
fi
cargo build --release --locked -p watchkeep-collector -p watchkeep-agent ||
    fail "the build failed; the reason stands above"
say "Starting; the data is kept in $data"
exec "$target/release/watchkeep-collector" quickstart --data-dir "$data" "$@"
