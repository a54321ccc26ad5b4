#!/usr/bin/env bash
# Plays the collector's long scenarios (collector/tests/it/scenario) on SQLite and on PostgreSQL, on a
# manual clock, and prints what was measured. The suite plays each of them shorter.
#
#   tests/scenarios.sh [NAME...]    all if none is named
#
#   storm      10,000 hosts fall silent at once and return at once
#   beside     200 hosts, and for an hour a hostile one beside them
#   day        12 hosts on bad lines for 24 hours, with three seeds: hold-ups, failing commits, restarts,
#              clocks that are set, and now and then a machine that really is off
#   random     100 drawn sequences of what can happen
#
# Needs WATCHKEEP_TEST_POSTGRES, the URL of a server where databases may be created. Takes about two
# hours.
set -euo pipefail
cd "$(dirname "$0")/.."

export WATCHKEEP_STORM=10000
export WATCHKEEP_HOSTILE_MINUTES=60
export WATCHKEEP_DAY_HOURS=24
export WATCHKEEP_DAY_SEEDS=1,2,3
export WATCHKEEP_SCENARIOS=100
all=(storm beside day random)
[ "$#" -gt 0 ] || set -- "${all[@]}"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
code=0
for name in "$@"; do
    case " ${all[*]} " in
    *" $name "*) ;;
    *) echo "there is no scenario $name, but ${all[*]}" >&2 && exit 2 ;;
    esac
    if cargo test --locked --workspace --test it -- --nocapture --test-threads=1 "scenario::$name::" \
        >"$output" 2>&1; then
        grep "^$name, " "$output"
    else
        cat "$output"
        code=1
    fi
done
exit "$code"
