#!/usr/bin/env bash
# Holds the collector up for a minute under 200 simulated agents, with the product's own limits:
# SIGSTOP of the collector (both databases), PostgreSQL frozen and stopped, and as root the disk
# under SQLite frozen and full, and one failed fsync. Each story checks that there is no ticket and
# no message, that the ledger records `collector_down`, that heartbeats are taken again within 5 s
# without a restart, and that nothing acknowledged is lost (tests/src/held_up.rs). The suite runs the
# same stories with shorter times.
#
#   tests/held_up.sh [SECONDS]    60 if not given
#
# Takes about five minutes a story. Needs WATCHKEEP_TEST_POSTGRES, an installed PostgreSQL server, and
# for the disk strace, e2fsprogs and loop devices.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/long.sh
. tests/long.sh

export WATCHKEEP_HELD_UP_S=${1:-60}
code=0
timeout 3000 "$programs/it" --nocapture --test-threads=1 held_up:: >"$programs/output" 2>&1 || code=$?
if [ "$(id -u)" = 0 ]; then
    timeout 3000 "$programs/machine" --nocapture --test-threads=1 disk:: >>"$programs/output" 2>&1 ||
        code=$?
else
    echo "the disk is left out: only root can mount one"
fi
[ "$code" = 0 ] || cat "$programs/output"
sed -n 's/.*held up: //p' "$programs/output"
exit "$code"
