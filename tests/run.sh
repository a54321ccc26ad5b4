#!/usr/bin/env bash
# The whole test suite, as CI runs it: installs what it needs (Debian or Ubuntu, root or sudo),
# starts a private PostgreSQL, and runs every stage even if one before it failed. The last line is
# `N passed, N failed`, the sum of all tests and checks; the exit code is 0 only if none failed.
#
#   tests/run.sh          everything
#   tests/run.sh quick    without end-to-end tests, fuzzing, browser, packages and machines
#   tests/run.sh STAGE... these stages only, as in `tests/run.sh clippy tests`
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/../packaging/lib.sh"

ALL=(format scripts dependencies clippy build tests fuzz doctests docs browser packages machine)
QUICK=(format scripts dependencies clippy tests doctests docs)

cd "$ROOT"
work=$(mktemp -d)
passed=0
failed=0
summary=()
postgres=
packed=

cleanup() {
    [ -z "$postgres" ] || as_postgres "$postgres/pg_ctl" -D "$work/pg/db" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap cleanup EXIT

# --- What the stages need ---

install_all() {
    need_compiler
    need_node
    need_zones
    need_rust
    need_rust_tools
    mkdir -p "$(target_dir)"
    have shellcheck || apt_install shellcheck
    have dbus-daemon || apt_install dbus-daemon
    need_deny
    need_nextest
    need_postgres
    need_faketime
    need_browser
}

# PostgreSQL refuses to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid postgres --regid postgres --init-groups "$@"
    else
        "$@"
    fi
}

# A server of our own on a loopback port, gone at the end. The tests get its URL.
start_postgres() {
    local word port
    postgres=$(postgres_bin)
    # It only has to outlive killed clients, not a power cut.
    local options="-F -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300"
    chmod 711 "$work"
    mkdir "$work/pg"
    word=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
    (umask 077 && echo "$word" >"$work/pg/word")
    [ "$(id -u)" != 0 ] || chown -R postgres "$work/pg"
    cd "$work/pg"
    as_postgres "$postgres/initdb" -D "$work/pg/db" -U postgres -A scram-sha-256 \
        --pwfile="$work/pg/word" -E UTF8 --no-locale --no-sync >"$work/pg.log" 2>&1 ||
        { cat "$work/pg.log" && fail "PostgreSQL's initdb failed"; }
    for _ in 1 2 3 4 5; do
        port=$((20000 + RANDOM % 12000))
        if as_postgres "$postgres/pg_ctl" -D "$work/pg/db" -w -l "$work/pg/log" \
            -o "$options -p $port" start >/dev/null 2>&1; then
            export WATCHKEEP_TEST_POSTGRES="postgres://postgres:$word@127.0.0.1:$port/postgres"
            cd "$ROOT"
            return
        fi
    done
    cat "$work/pg/log"
    fail "PostgreSQL does not start"
}

# --- The stages: each returns its result; those that count tests themselves call `count` ---

# count PASSED FAILED: for stages of many tests.
count() {
    passed=$((passed + $1))
    failed=$((failed + $2))
    counted=1
}

stage_format() { cargo fmt --all --check -- --files-with-diff; }

stage_scripts() {
    local scripts
    mapfile -t scripts < <(git ls-files -co --exclude-standard '*.sh' .ci/run 'packaging/deb/*.in')
    shellcheck -x "${scripts[@]}"
}

stage_dependencies() { cargo deny --locked --all-features check bans licenses sources; }

stage_clippy() { cargo clippy --workspace --all-targets --locked --keep-going -- -D warnings; }

# Programs and tests in one go: together they agree on the features of what they depend on.
stage_build() { cargo build --workspace --all-targets --locked; }

stage_tests() {
    if [ -n "${quick:-}" ]; then
        run_nextest -E 'not (binary_id(watchkeep-tests::it) or binary_id(watchkeep-tests::machine))'
        return
    fi
    # The end-to-end tests start the programs.
    stage_build || return 1
    run_nextest -E 'not binary_id(watchkeep-tests::machine)'
}

# What reads the bytes of strangers, each for 20 s, with other inputs in each run. Without the
# instruments of tests/fuzz/run.sh, which need another compiler.
stage_fuzz() {
    stage_build || return 1
    WATCHKEEP_FUZZ_SECONDS=20 \
        run_nextest --success-output final \
        -E 'package(watchkeep-agent) and test(/^(logs|policy|spool)::fuzz::tests::/)'
}

# run_nextest FILTER...: runs tests of the workspace and counts them.
run_nextest() {
    local junit code=0 tests bad
    # As .config/nextest.toml says, wherever programs are built.
    junit=$ROOT/target/nextest/ci/junit.xml
    rm -f "$junit"
    cargo nextest run --workspace --locked --profile ci "$@" || code=$?
    if [ ! -s "$junit" ]; then
        echo "no test ran"
        return 1
    fi
    # The root element sums up: tests="N" ... failures="N" errors="N".
    tests=$(junit_number tests "$junit")
    bad=$(($(junit_number failures "$junit") + $(junit_number errors "$junit")))
    [ "$code" = 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$tests" -gt 0 ] || bad=1
    count "$((tests > bad ? tests - bad : 0))" "$bad"
    [ "$bad" = 0 ]
}

junit_number() { sed -n "s/.*<testsuites [^>]*$1=\"\([0-9]*\)\".*/\1/p" "$2" | head -n 1; }

stage_doctests() {
    local code=0
    cargo test --doc --workspace --locked 2>&1 | tee "$work/doctests" || code=$?
    count_lines "$code" "$work/doctests" \
        's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed.*/\1 \2/p'
}

# For those who work on it, so with the private parts.
stage_docs() {
    RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" \
        cargo doc --workspace --no-deps --document-private-items --locked --keep-going
}

# In a real browser, against a collector that it starts from the programs built for the tests.
stage_browser() {
    local code=0
    if [ ! -f tests/browser/run.sh ]; then
        echo "tests/browser/run.sh is missing"
        return 1
    fi
    stage_build || return 1
    STORY_BIN=$(target_dir)/debug bash tests/browser/run.sh 2>&1 | tee "$work/browser" || code=$?
    # Its closing line, not what a part of it may say.
    tail -n 1 "$work/browser" >"$work/browser.last"
    count_lines "$code" "$work/browser.last" 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1 \2/p'
}

# Made of the programs that are built already: what is checked is how they are packed, and the
# optimised build would take as long as all other stages together.
stage_packages() { build_packages && packaging/check.sh; }

# Once a run.
build_packages() {
    [ -z "$packed" ] || return 0
    packaging/build.sh --profile dev && packed=yes
}

# Stories on machines that are booted for them, from the packages. Only root can do that.
stage_machine() {
    local root
    root=$(target_dir)/machine/root
    if [ "$(id -u)" != 0 ]; then
        echo "machines are booted by root only: run this stage as root"
        return 1
    fi
    have systemd-nspawn || apt_install systemd-container
    tests/machine/root.sh "$root" || return 1
    build_packages || return 1
    stage_build || return 1
    WATCHKEEP_TEST_MACHINE=$root WATCHKEEP_TEST_PACKAGES=$(target_dir)/packages \
        run_nextest -E 'binary_id(watchkeep-tests::machine)'
}

# count_lines CODE FILE SED: sums "PASSED FAILED" lines that the sed script prints. A run that
# failed has at least one failure; a run without any line ran nothing.
count_lines() {
    local good bad sums=0 bads=0 lines=0
    while read -r good bad; do
        sums=$((sums + good)) bads=$((bads + bad)) lines=$((lines + 1))
    done < <(sed -n "$3" "$2")
    if [ "$lines" = 0 ]; then
        echo "its output has no line that says how many passed"
        return 1
    fi
    [ "$1" = 0 ] || [ "$bads" -gt 0 ] || bads=1
    count "$sums" "$bads"
    [ "$bads" = 0 ]
}

run_stage() {
    local name=$1 start=$SECONDS result=passed
    counted=
    say "$name"
    "stage_$name" || result=FAILED
    if [ -z "$counted" ]; then
        if [ "$result" = passed ]; then count 1 0; else count 0 1; fi
    fi
    summary+=("$(printf '%-14s %6d s  %s' "$name" $((SECONDS - start)) "$result")")
    say "$name $result after $((SECONDS - start)) s"
}

case ${1:-} in
-h | --help)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    exit
    ;;
quick)
    quick=1
    stages=("${QUICK[@]}")
    ;;
"") stages=("${ALL[@]}") ;;
*) stages=("$@") ;;
esac
for name in "${stages[@]}"; do
    declare -F "stage_$name" >/dev/null || fail "there is no stage $name; there are: ${ALL[*]}"
done

say "Preparing"
install_all
start_postgres
summary+=("$(printf '%-14s %6d s' preparing $SECONDS)")
# Kept between runs by developers; worth its space and time only there.
[ -z "${CI:-}" ] || export CARGO_INCREMENTAL=0
for name in "${stages[@]}"; do
    run_stage "$name"
done

echo
printf '%s\n' "${summary[@]}"
printf '%-14s %6d s\n\n' total $SECONDS
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]
