#!/usr/bin/env bash
# Runs the fuzz targets, each for so many seconds (60), one after the other, and ends with a line
# that sums up. Needs rustup's nightly toolchain, whose instruments tell libFuzzer what an input has
# reached, and g++. What breaks a target is kept in tests/fuzz/found/TARGET/, where the ordinary tests find
# it from then on: commit it with the mend. The corpus grows in target/fuzz/corpus/ and may be thrown away.
#
#   tests/fuzz/run.sh [SECONDS] [TARGET...]     as in `tests/fuzz/run.sh 300 spool framing`
set -euo pipefail
cd "$(dirname "$0")"

ALL=(framing redaction spool dbus policy token heartbeat row chunk)
TOOLCHAIN=${WATCHKEEP_FUZZ_TOOLCHAIN:-nightly}
seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
targets=("${@:-${ALL[@]}}")
[ $# -gt 0 ] || targets=("${ALL[@]}")

triple=$(rustc "+$TOOLCHAIN" -vV | sed -n 's/^host: //p')
out=$(cd ../.. && pwd)/target/fuzz
corpus=$out/corpus
# As cargo-fuzz does it. `--target` keeps the instruments out of build scripts.
instruments="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
instruments+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
instruments+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address"
bins=(--bin seeds)
for target in "${targets[@]}"; do
    if [ ! -f "targets/$target.rs" ]; then
        echo "run.sh: there is no target $target; there are: ${ALL[*]}" >&2
        exit 1
    fi
    bins+=(--bin "$target")
done
# Not --locked: the lock file here follows the workspace's, whose packages it names.
RUSTFLAGS=$instruments CARGO_TARGET_DIR=$out cargo "+$TOOLCHAIN" build --release \
    --target "$triple" "${bins[@]}"
programs=$out/$triple/release
"$programs/seeds" "$out/seeds"

# Inputs are files of the spool: without a disk they are quick.
work=$(mktemp -d -p /dev/shm 2>/dev/null || mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0
failed=0
for target in "${targets[@]}"; do
    mkdir -p "$corpus/$target" "found/$target"
    log=$out/$target.log
    code=0
    TMPDIR=$work "$programs/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 \
        -max_len=16384 -len_control=20 -use_value_profile=1 -print_final_stats=1 \
        -artifact_prefix="found/$target/" "$corpus/$target" "$out/seeds/$target" \
        >"$log" 2>&1 || code=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    reached=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    if [ "$code" = 0 ]; then
        passed=$((passed + 1))
        result=held
    else
        failed=$((failed + 1))
        result="BROKE, see $log"
        grep -m 3 -A 3 'panicked at\|ERROR: ' "$log" || tail -n 20 "$log"
    fi
    printf '%-10s %10s runs, %6s places reached: %s\n' "$target" "${runs:-?}" "${reached:-?}" "$result"
    rmdir "found/$target" 2>/dev/null || true
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
