#!/usr/bin/env bash
# Runs the standard set of measurements with optimised programs, on loopback and in directories of
# its own, and writes a Markdown table to standard output and to target/bench/table.md.
# Takes about half an hour after the build, most of it to make stores with a year of history
# (`--only pages`). PostgreSQL is measured if WATCHKEEP_TEST_POSTGRES names a server. `tests/bench.sh --trial` takes seconds and only shows that the set works;
# `tests/bench.sh --only log` measures that alone.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo build --locked --release --bin watchkeep-collector --bin watchkeep-bench
# The agent as it is packed; its link takes minutes, and pages need none.
[ "$*" = "--only pages" ] || cargo build --locked --profile dist -p watchkeep-agent
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
mkdir -p "$target/bench"
WATCHKEEP_TEST_AGENT=$target/dist/watchkeep-agent timeout 3600 "$target/release/watchkeep-bench" "$@" | tee "$target/bench/table.md"
