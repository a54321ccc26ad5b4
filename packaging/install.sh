#!/bin/sh
# Installs the program of this archive on a Linux with systemd, for distributions without a package:
#
#   ./install.sh              installs, or upgrades and restarts
#   ./install.sh --remove     removes the program; settings and state stay
#   ./install.sh --purge      removes settings, state and the system user too
#
# Nothing is fetched. As root.
set -eu
cd "$(dirname "$0")"

PROGRAM=@PACKAGE@
USER_NAME=@USER@
STATE=@STATE@
CONFIG=@CONFIG@
LIBC=@LIBC@
UNIT=/etc/systemd/system/$PROGRAM.service
MANUALS=/usr/local/share/man/man1
BASH_COMPLETION=/usr/local/share/bash-completion/completions/$PROGRAM
ZSH_COMPLETION=/usr/local/share/zsh/site-functions/_$PROGRAM
FISH_COMPLETION=/usr/local/share/fish/vendor_completions.d/$PROGRAM.fish

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

running() { [ -d /run/systemd/system ]; }

# True if version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check() {
    [ "$(uname -m)" = @MACHINE@ ] || fail "this is for @MACHINE@, the machine is $(uname -m)"
    libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/glibc //')
    [ -n "$libc" ] || fail "this machine has no glibc, which the program needs in version $LIBC or newer"
    at_least "$libc" "$LIBC" || fail "the program needs glibc $LIBC or newer, this machine has $libc"
    [ -d /etc/systemd/system ] || fail "this machine has no systemd"
}

add_user() {
    getent passwd $USER_NAME >/dev/null && return
    getent group $USER_NAME >/dev/null || groupadd --system $USER_NAME
    useradd --system --gid $USER_NAME --home-dir $STATE --no-create-home --shell /usr/sbin/nologin $USER_NAME
}

add() {
    check
    add_user
    install -D -m 755 usr/bin/$PROGRAM /usr/local/bin/$PROGRAM.new
    # A running program can't be written over, only replaced.
    mv /usr/local/bin/$PROGRAM.new /usr/local/bin/$PROGRAM
    sed "s|/usr/bin/|/usr/local/bin/|" usr/lib/systemd/system/$PROGRAM.service >$UNIT
    chmod 644 $UNIT
    install -d -m 700 -o $USER_NAME -g $USER_NAME $STATE
    if [ -e $CONFIG ]; then
        echo "kept the settings in $CONFIG"
    else
        install -D -m 640 -o root -g $USER_NAME .$CONFIG $CONFIG
    fi
    install -d $MANUALS
    install -m 644 usr/share/man/man1/* $MANUALS
    install -D -m 644 usr/share/bash-completion/completions/$PROGRAM $BASH_COMPLETION
    install -D -m 644 usr/share/zsh/vendor-completions/_$PROGRAM $ZSH_COMPLETION
    install -D -m 644 usr/share/fish/vendor_completions.d/$PROGRAM.fish $FISH_COMPLETION
    systemctl enable --quiet $PROGRAM.service
    if running; then
        systemctl daemon-reload
        systemctl restart $PROGRAM.service
    fi
    echo "installed $(/usr/local/bin/$PROGRAM --version)"
}

remove() {
    if running; then systemctl stop $PROGRAM.service || true; fi
    systemctl disable --quiet $PROGRAM.service 2>/dev/null || true
    rm -f /usr/local/bin/$PROGRAM $UNIT $BASH_COMPLETION $ZSH_COMPLETION $FISH_COMPLETION
    rm -f $MANUALS/$PROGRAM.1.gz $MANUALS/$PROGRAM-*.1.gz
    if running; then systemctl daemon-reload; fi
}

[ "$(id -u)" = 0 ] || fail "this needs root"
case ${1:-} in
"") add ;;
--remove) remove ;;
--purge)
    remove
    rm -rf $STATE $CONFIG
    rmdir --ignore-fail-on-non-empty /etc/watchkeep 2>/dev/null || true
    if getent passwd $USER_NAME >/dev/null; then userdel $USER_NAME; fi
    ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    [ "$1" = --help ]
    ;;
esac
