#!/bin/sh
# Installs the program of this archive on a Linux with systemd or OpenRC, for distributions without
# a package:
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
# Groups that may read logs.
LOG_GROUPS="@GROUPS@"
# The oldest glibc that the program runs with; "static": it needs none.
LIBC=@LIBC@
NEXT="@NEXT@"
UNIT=/etc/systemd/system/$PROGRAM.service
SCRIPT=/etc/init.d/$PROGRAM
EXAMPLES=/usr/local/share/doc/$PROGRAM/examples
MANUALS=/usr/local/share/man/man1
BASH_COMPLETION=/usr/local/share/bash-completion/completions/$PROGRAM
ZSH_COMPLETION=/usr/local/share/zsh/site-functions/_$PROGRAM
FISH_COMPLETION=/usr/local/share/fish/vendor_completions.d/$PROGRAM.fish

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# True if version $1 is at least version $2.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# What starts services here.
if [ -d /etc/systemd/system ]; then
    MANAGER=systemd
elif have openrc-run || [ -x /sbin/openrc-run ]; then
    MANAGER=openrc
else
    MANAGER=
fi

# True if services are started now, and not only installed.
running() {
    case $MANAGER in
    systemd) [ -d /run/systemd/system ] ;;
    openrc) [ -d /run/openrc ] ;;
    *) false ;;
    esac
}

check() {
    [ "$(uname -m)" = @MACHINE@ ] || fail "this is for @MACHINE@, the machine is $(uname -m)"
    if [ "$LIBC" != static ]; then
        libc=$(getconf GNU_LIBC_VERSION 2>/dev/null | sed 's/glibc //')
        [ -n "$libc" ] || fail "this machine has no glibc, which the program needs in version $LIBC or newer: use the archive for musl"
        at_least "$libc" "$LIBC" || fail "the program needs glibc $LIBC or newer, this machine has $libc"
    fi
    case $MANAGER in
    systemd) [ -f usr/lib/systemd/system/$PROGRAM.service ] || MANAGER= ;;
    openrc) [ -f etc/init.d/$PROGRAM ] || MANAGER= ;;
    esac
    [ -n "$MANAGER" ] || fail "this machine has neither systemd nor an OpenRC that the program has a script for"
}

# In a group, on machines with and without the programs of shadow.
add_to_group() {
    grep -q "^$1:" /etc/group || return 0
    if have usermod; then usermod -a -G "$1" $USER_NAME; else addgroup $USER_NAME "$1" >/dev/null; fi
}

add_user() {
    if ! id -u $USER_NAME >/dev/null 2>&1; then
        if have useradd; then
            grep -q "^$USER_NAME:" /etc/group || groupadd --system $USER_NAME
            useradd --system --gid $USER_NAME --home-dir $STATE --no-create-home --shell /usr/sbin/nologin $USER_NAME
        else
            grep -q "^$USER_NAME:" /etc/group || addgroup -S $USER_NAME
            adduser -S -D -H -h $STATE -s /sbin/nologin -G $USER_NAME $USER_NAME
        fi
    fi
    for group in $LOG_GROUPS; do add_to_group "$group"; done
}

add_service() {
    if [ $MANAGER = systemd ]; then
        sed "s|/usr/bin/|/usr/local/bin/|" usr/lib/systemd/system/$PROGRAM.service >$UNIT
        chmod 644 $UNIT
        systemctl enable --quiet $PROGRAM.service
        if running; then
            systemctl daemon-reload
            systemctl restart $PROGRAM.service
        fi
    else
        sed "s|/usr/bin/|/usr/local/bin/|" etc/init.d/$PROGRAM >$SCRIPT
        chmod 755 $SCRIPT
        rc-update -q add $PROGRAM default
        # Without an identity it would not start.
        if running && [ -e $STATE/identity.json ]; then rc-service $PROGRAM restart; fi
    fi
}

add() {
    check
    add_user
    mkdir -p /usr/local/bin
    install -m 755 usr/bin/$PROGRAM /usr/local/bin/$PROGRAM.new
    # A running program can't be written over, only replaced.
    mv /usr/local/bin/$PROGRAM.new /usr/local/bin/$PROGRAM
    mkdir -p $STATE
    chown $USER_NAME:$USER_NAME $STATE
    chmod 700 $STATE
    if [ -e $CONFIG ]; then
        echo "kept the settings in $CONFIG"
    else
        install -D -m 640 .$CONFIG $CONFIG
        chown root:$USER_NAME $CONFIG
    fi
    for file in usr/share/man/man1/*; do install -D -m 644 "$file" "$MANUALS/$(basename "$file")"; done
    for file in "usr/share/doc/$PROGRAM/examples/"*; do
        [ ! -e "$file" ] || install -D -m 644 "$file" "$EXAMPLES/$(basename "$file")"
    done
    install -D -m 644 usr/share/bash-completion/completions/$PROGRAM $BASH_COMPLETION
    install -D -m 644 usr/share/zsh/vendor-completions/_$PROGRAM $ZSH_COMPLETION
    install -D -m 644 usr/share/fish/vendor_completions.d/$PROGRAM.fish $FISH_COMPLETION
    add_service
    echo "installed $(/usr/local/bin/$PROGRAM --version)"
    [ -z "$NEXT" ] || [ -e $STATE/identity.json ] || echo "next: $NEXT"
}

remove() {
    case $MANAGER in
    systemd)
        if running; then systemctl stop $PROGRAM.service || true; fi
        systemctl disable --quiet $PROGRAM.service 2>/dev/null || true
        ;;
    openrc)
        if running; then rc-service $PROGRAM stop || true; fi
        rc-update -q delete $PROGRAM default 2>/dev/null || true
        ;;
    esac
    rm -f /usr/local/bin/$PROGRAM $UNIT $SCRIPT $BASH_COMPLETION $ZSH_COMPLETION $FISH_COMPLETION
    rm -f $MANUALS/$PROGRAM.1.gz $MANUALS/$PROGRAM-*.1.gz
    rm -rf /usr/local/share/doc/$PROGRAM
    if [ "$MANAGER" = systemd ] && running; then systemctl daemon-reload; fi
}

remove_user() {
    id -u $USER_NAME >/dev/null 2>&1 || return 0
    if have userdel; then userdel $USER_NAME; else deluser $USER_NAME; fi
}

[ "$(id -u)" = 0 ] || fail "this needs root"
case ${1:-} in
"") add ;;
--remove) remove ;;
--purge)
    remove
    rm -rf $STATE $CONFIG
    rmdir /etc/watchkeep 2>/dev/null || true
    remove_user
    ;;
*)
    sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0"
    [ "$1" = --help ]
    ;;
esac
