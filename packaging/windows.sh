#!/usr/bin/env bash
# Builds the agent for Windows (x86_64) on Debian 12, and runs what runs of it under Wine: see
# docs/windows.md. Not part of tests/run.sh: the first build takes ten minutes on two processors.
#
#   packaging/windows.sh build    the program, into target/windows/ (--release for one to ship)
#   packaging/windows.sh check    the program and the tests of agent/windows, compiled without making them
#   packaging/windows.sh run      builds, then runs it under Wine: as a service, with a real collector,
#                                 watching another service. The collector is that of the environment
#                                 variable WATCHKEEP_COLLECTOR, or built for this
#
# rustup's toolchains have no standard library for Windows here; Debian's rustc-web comes with its
# source, from which it is built too. Its target directory is its own: it is another compiler.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

TARGET=x86_64-pc-windows-gnu

cd "$ROOT"
work=$(mktemp -d)
started=()
# What this script started, by its number; Wine's own programs end when nobody uses them.
end() {
    local pid
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    [ -z "${WINEPREFIX:-}" ] || wineserver -k || true
    rm -rf "$work"
}
trap end EXIT
dir=${WATCHKEEP_WINDOWS_TARGET:-$(target_dir)/windows}
profile=debug
collector=${WATCHKEEP_COLLECTOR:-}
# The programs take variables of this form as settings.
unset WATCHKEEP_WINDOWS_TARGET WATCHKEEP_COLLECTOR

need_cross() {
    local program
    for program in x86_64-w64-mingw32-gcc x86_64-w64-mingw32-g++ nasm cmake; do
        have $program || absent=1
    done
    [ -z "${absent:-}" ] && [ -x /usr/bin/rustc ] && [ -d /usr/lib/rustlib/src/rust/library ] && return
    apt_install rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64-win32 \
        g++-mingw-w64-x86-64-win32 nasm cmake
}

# cross VERB ARGUMENT...: cargo for Windows.
cross() {
    local verb=$1
    shift
    PATH=/usr/bin:/bin:/usr/sbin:/sbin RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$dir \
        /usr/bin/cargo "$verb" -Z build-std=std,panic_unwind --target $TARGET --locked "$@"
}

# Wine 8 lacks bcryptprimitives.dll, which Rust's standard library draws its random numbers from.
need_wine() {
    have wine || apt_install wine wine64
    export WINEPREFIX=$work/wine WINEARCH=win64 WINEDEBUG=-all
    timeout 180 wine wineboot --init >/dev/null 2>&1 || fail "Wine can't make its directory"
    cat >"$work/random.c" <<'C'
#include <windows.h>
#include <ntsecapi.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T length) { return RtlGenRandom(to, length); }
C
    x86_64-w64-mingw32-gcc -shared -O2 -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" \
        "$work/random.c" -ladvapi32
    # In the session that made the directory services do not start: a new one.
    wineserver -k || true
    # Wine's service manager ends with the last program in the foreground, and all services with it.
    wine cmd /c 'ping -n 600 127.0.0.1' >/dev/null 2>&1 &
    started+=($!)
}

agent() { timeout 60 wine "$dir/$TARGET/$profile/watchkeep-agent.exe" "$@"; }

# expect WHAT WORD COMMAND...: the command goes well and says the word.
expect() {
    local what=$1 word=$2
    shift 2
    "$@" >"$work/out" 2>&1 || { cat "$work/out" && fail "$what failed"; }
    # A program that has nothing to say prints no line at all.
    [ -z "$word" ] || grep -qF -- "$word" "$work/out" || { cat "$work/out" && fail "$what does not say $word"; }
    say "$what: fine"
}

# until_says WHAT WORD COMMAND...: the command says the word within a minute.
until_says() {
    local what=$1 word=$2 deadline=$((SECONDS + 60))
    shift 2
    # However the command ends.
    until ("$@" || true) >"$work/out" 2>&1 && grep -qF -- "$word" "$work/out"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            cat "$work/out" "$work/collector.log"
            fail "$what: $word was not said"
        fi
        sleep 0.5
    done
    say "$what: fine"
}

collector() { "$collector" "$@" --config "$work/collector.toml"; }

# As the store has it, without asking the collector.
stored() { sqlite3 -readonly "$work/data/watchkeep.db" "$1"; }

# A collector of this machine with a policy for the agent, and a token in $token.
start_collector() {
    if [ -z "$collector" ]; then
        cargo build --locked -p watchkeep-collector
        collector=$(target_dir)/debug/watchkeep-collector
    fi
    have sqlite3 || apt_install sqlite3
    cat >"$work/collector.toml" <<TOML
data_dir = "$work/data"
[agents]
listen = "127.0.0.1:17443"
public_url = "https://localhost:17443"
[web]
listen = "127.0.0.1:18443"
public_url = "https://localhost:18443"
[silence]
grace_ms = 1000
[policy]
interval_ms = 1000
services = [
  { type = "winsvc", name = "Spooler" },
  { type = "winsvc", name = "NoSuchService" },
  { type = "process", name = "services.exe" },
]
[[policy.logs]]
path = "eventlog:System"
rules = [{ name = "any", pattern = "." }]
event_log = { max_level = 2 }
[[policy.logs]]
path = "eventlog:Security"
rules = [{ name = "forbidden", pattern = "." }]
event_log = {}
[[policy.logs]]
path = "C:\\\\watched\\\\*.log"
rules = [{ name = "app-errors", pattern = "ERROR" }]
TOML
    collector init >"$work/out" 2>&1 || { cat "$work/out" && fail "the collector's store can't be made"; }
    collector apply --file config/demo.toml >"$work/out" 2>&1 || { cat "$work/out" && fail "apply failed"; }
    "$collector" serve --config "$work/collector.toml" >"$work/collector.log" 2>&1 &
    started+=($!)
    token=$(collector token create --site "This machine" | grep -o 'wk[^ ]*' | head -n 1)
    [ -n "$token" ] || fail "no token was made"
}

tickets() { stored "SELECT check_key, state, title FROM ticket ORDER BY number"; }
ticket() { stored "SELECT state FROM ticket WHERE check_key = 'service:winsvc:$1' ORDER BY number DESC LIMIT 1"; }
events() { stored "SELECT kind, detail FROM host_event ORDER BY id"; }
heartbeats() { stored "SELECT CASE WHEN COUNT(*) >= $1 THEN 'enough' ELSE COUNT(*) END FROM heartbeat"; }

# The agent as a service, from its enrolment to its goodbye.
service_story() {
    start_collector
    expect "enrolment" "enrolled as host" agent enroll "$token" --config 'C:\agent.toml'
    expect "the service's making" "" agent service install --config 'C:\agent.toml'
    # Wine's sc can't show them.
    expect "the service's settings" 0x2 \
        wine reg query 'HKLM\SYSTEM\CurrentControlSet\Services\watchkeep-agent' /v Start
    wine net stop Spooler >/dev/null 2>&1 || true
    expect "the service's start" "" wine net start watchkeep-agent
    until_says "heartbeats in the store" enough heartbeats 5
    until_says "a stopped service is a ticket" new ticket Spooler
    until_says "a service that there is not, too" new ticket NoSuchService
    wine net start Spooler >/dev/null 2>&1 || fail "Wine's Spooler does not start"
    until_says "a started one is resolved" resolved ticket Spooler
    until_says "the Event Log that can't be read is a gap" eventlog:System events
    until_says "what the settings forbid is refused" limits.event_logs agent status --config 'C:\agent.toml'
    printf 'ERROR one\r\nfine\r\n' >>"$WINEPREFIX/drive_c/watched/app.log"
    until_says "a line of a log file" app-errors events
    expect "the service's stop" "" wine net stop watchkeep-agent
    until_says "its goodbye" '"reason":"stop"' events
    tickets
    expect "the service's removal" "" agent service remove
}

# Unit tests of the calls themselves.
call_tests() {
    local program
    program=$(cross test --no-run -p watchkeep-windows --message-format=json |
        grep -o '"executable":"[^"]*\.exe"' | cut -d '"' -f 4 | tail -n 1)
    expect "the tests of agent/windows" "test result: ok" wine "$program"
}

run() {
    need_wine
    mkdir -p "$WINEPREFIX/drive_c/watched"
    printf 'ERROR old\r\n' >"$WINEPREFIX/drive_c/watched/app.log"
    printf '%s\n' 'state_dir = "C:/watchkeep"' '[limits]' 'log_paths = ["C:/watched/**"]' \
        >"$WINEPREFIX/drive_c/agent.toml"
    expect "the version" watchkeep-agent agent --version
    expect "the settings" "is valid" agent check-config --config 'C:\agent.toml'
    expect "a sample" mem.total_bytes agent sample
    call_tests
    service_story
}

case ${1:-} in
build)
    need_cross
    shift
    cross build -p watchkeep-agent "$@"
    ;;
check)
    need_cross
    cross check -p watchkeep-agent
    cross check -p watchkeep-windows --all-targets
    ;;
run)
    need_cross
    cross build -p watchkeep-agent
    run
    ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    [ "${1:-}" = --help ] && exit
    exit 2
    ;;
esac
