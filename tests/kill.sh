#!/usr/bin/env bash
# Kills the collector again and again (kill -9) under 200 simulated agents, on SQLite and on
# PostgreSQL, and checks after each part that nothing acknowledged is lost, nothing is stored twice
# and no ticket is false (tests/it/crash.rs). The suite kills 20 times; this is run by hand:
#
#   tests/kill.sh [KILLS [sqlite|postgres]]    kills for each database, 500 if not given
#
# Takes about 4 s a kill. Needs WATCHKEEP_TEST_POSTGRES, the URL of a server where databases may be
# created. The last line of each database is its sum.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/long.sh
. tests/long.sh

wanted=${1:-500}
databases=(sqlite postgres)
[ -z "${2:-}" ] || databases=("$2")
# One part, with a store of its own. It must end before the sealer takes its heartbeats away, five
# minutes after the hour.
part=25
latest_minute=55

for database in "${databases[@]}"; do
    killed=0 acknowledged=0 stored=0 longest=0
    while [ "$killed" -lt "$wanted" ]; do
        while [ "$((10#$(date +%M)))" -gt "$latest_minute" ]; do sleep 10; done
        left=$((wanted - killed))
        # The story adds one kill of its own.
        kills=$(((left < part ? left : part) - 1))
        WATCHKEEP_KILLS=$kills timeout 1800 "$programs/it" --nocapture "crash::$database::" \
            >"$programs/output" 2>&1 || true
        line=$(sed -n 's/.*: \([0-9]*\) kills, \([0-9]*\) acknowledged, \([0-9]*\) stored, longest start \([0-9]*\) ms.*/\1 \2 \3 \4/p' "$programs/output")
        if [ -z "$line" ]; then
            cat "$programs/output"
            echo "$database: failed after $killed kills" >&2
            exit 1
        fi
        read -r k a s l <<<"$line"
        killed=$((killed + k)) acknowledged=$((acknowledged + a)) stored=$((stored + s))
        [ "$l" -le "$longest" ] || longest=$l
        echo "$database: $killed of $wanted kills"
    done
    echo "$database: $killed kills, $acknowledged acknowledged, $stored stored, 0 lost, 0 doubled, 0 false tickets, longest start $longest ms"
done
