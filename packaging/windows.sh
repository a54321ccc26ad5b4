#!/usr/bin/env bash
# Builds the agent for Windows (x86_64) on Debian 12, and runs what runs of it under Wine: see
# docs/windows.md. Not part of tests/run.sh: the first build takes ten minutes on two processors.
#
#   packaging/windows.sh build    the program, into target/windows/ (--release for one to ship)
#   packaging/windows.sh check    the program and its tests, compiled without making them
#   packaging/windows.sh run      builds, then runs the verbs under Wine
#
# rustup's toolchains have no standard library for Windows here; Debian's rustc-web comes with its
# source, from which it is built too. Its target directory is its own: it is another compiler.
set -euo pipefail
# shellcheck source=packaging/lib.sh
. "$(dirname "$0")/lib.sh"

TARGET=x86_64-pc-windows-gnu

cd "$ROOT"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
dir=${WATCHKEEP_WINDOWS_TARGET:-$(target_dir)/windows}
profile=debug

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
        /usr/bin/cargo "$verb" -Z build-std=std,panic_unwind --target $TARGET --locked -p watchkeep-agent "$@"
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
}

agent() { timeout 60 wine "$dir/$TARGET/$profile/watchkeep-agent.exe" "$@"; }

# expect WHAT WORD COMMAND...: the command goes well and says the word.
expect() {
    local what=$1 word=$2
    shift 2
    "$@" >"$work/out" 2>&1 || { cat "$work/out" && fail "$what failed"; }
    grep -qF -- "$word" "$work/out" || { cat "$work/out" && fail "$what does not say $word"; }
    say "$what: fine"
}

run() {
    need_wine
    printf 'state_dir = "C:/watchkeep"\n' >"$WINEPREFIX/drive_c/agent.toml"
    expect "the version" watchkeep-agent agent --version
    expect "the settings" "is valid" agent check-config --config 'C:\agent.toml'
    expect "a sample" mem.total_bytes agent sample
    expect "the service's making" "" agent service install --config 'C:\agent.toml'
    expect "the service's settings" AUTO_START wine sc qc watchkeep-agent
    expect "the service's removal" "" agent service remove
}

case ${1:-} in
build)
    need_cross
    shift
    cross build "$@"
    ;;
check)
    need_cross
    cross check --all-targets
    ;;
run)
    need_cross
    cross build
    run
    ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    [ "${1:-}" = --help ] && exit
    exit 2
    ;;
esac
