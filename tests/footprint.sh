#!/usr/bin/env bash
# What the agent costs a customer's server, beside the agents of other products on the same machine
# in the same run: memory, threads, processor time, wake-ups, bytes on the wire, size of the program.
# All of them measure every ten seconds. Takes three minutes after the build, installs the peers'
# Debian packages (without starting their services) and writes a table into docs/benchmarks.md.
#
#   tests/footprint.sh [--cycles N] [--agent FILE] [--collector FILE] [--without PEER]... [--print]
#
#   --cycles N        how many intervals are measured, after five to warm up (default 9)
#   --agent FILE      measure this program instead of building one with profile dist
#   --collector FILE  use this collector instead of building one with profile release
#   --without PEER    leave out collectd, exporter, zabbix or monit; a peer that can't be installed
#                     and was not left out is a failure
#   --print           print the table, leave the document alone
set -euo pipefail
cd "$(dirname "$0")/.."

cycles=9 agent='' collector='' print='' without=' '
while [ $# -gt 0 ]; do
    case $1 in
    --cycles) cycles=${2:?} && shift ;;
    --agent) agent=$(realpath "${2:?}") && shift ;;
    --collector) collector=$(realpath "${2:?}") && shift ;;
    --without) without+="${2:?} " && shift ;;
    --print) print=yes ;;
    *) sed -n '2,/^set /{/^set /d; s/^# \{0,1\}//; p}' "$0" && exit 2 ;;
    esac
    shift
done
wanted() { [[ $without != *" $1 "* ]]; }
fail() { echo "footprint: $*" >&2 && exit 1; }

target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
if [ -z "$agent" ]; then
    cargo build --locked --profile dist -p watchkeep-agent
    agent=$target/dist/watchkeep-agent
fi
if [ -z "$collector" ]; then
    cargo build --locked --release -p watchkeep-collector
    collector=$target/release/watchkeep-collector
fi

declare -A package=([collectd]=collectd-core [exporter]=prometheus-node-exporter [zabbix]=zabbix-agent [monit]=monit)
declare -A program=([collectd]=/usr/sbin/collectd [exporter]=/usr/bin/prometheus-node-exporter
    [zabbix]=/usr/sbin/zabbix_agentd [monit]=/usr/bin/monit)
peers=()
for peer in collectd exporter zabbix monit; do
    wanted "$peer" || continue
    peers+=("$peer")
    [ -x "${program[$peer]}" ] && continue
    rule=/usr/sbin/policy-rc.d
    made=''
    # Installing must not start anything.
    [ -e $rule ] || { printf '#!/bin/sh\nexit 101\n' >$rule && chmod +x $rule && made=yes; }
    DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -o DPkg::Lock::Timeout=120 install -y -qq \
        --no-install-recommends "${package[$peer]}" >/dev/null || true
    [ -z "$made" ] || rm $rule
    [ -x "${program[$peer]}" ] ||
        fail "${package[$peer]} can't be installed; leave it out with --without $peer"
done

dir=$(mktemp -d)
declare -A pid
started=()
finish() {
    for one in "${started[@]}"; do kill "$one" 2>/dev/null || true; done
    wait 2>/dev/null || true
    rm -rf "$dir"
}
trap finish EXIT
run() { # NAME COMMAND...
    local name=$1
    shift
    "$@" >"$dir/$name.log" 2>&1 </dev/null &
    pid[$name]=$!
    started+=("$!")
}
# zabbix_agentd takes no port above 32767.
base=$((20000 + RANDOM % 12000))
port() { echo $((base + $1)); }

# Our own: two services, one log, as the benchmarks have it.
mkdir "$dir/logs" "$dir/state"
echo start >"$dir/logs/app.log"
cat >"$dir/collector.toml" <<TOML
data_dir = "$dir/data"
[agents]
listen = "127.0.0.1:$(port 0)"
public_url = "https://localhost:$(port 0)"
[web]
listen = "127.0.0.1:$(port 1)"
public_url = "https://localhost:$(port 1)"
[policy]
interval_ms = 10000
services = [{ type = "process", name = "watchkeep-colle" }, { type = "tcp", address = "127.0.0.1:$(port 0)" }]
[[policy.logs]]
path = "$dir/logs/*.log"
rules = [{ name = "errors", pattern = "ERROR" }]
TOML
printf 'state_dir = "%s"\n[limits]\nlog_paths = ["%s/*"]\n' "$dir/state" "$dir/logs" >"$dir/agent.toml"
"$collector" --config "$dir/collector.toml" init >"$dir/init.log"
"$collector" --config "$dir/collector.toml" apply -f config/fleet.example.toml >>"$dir/init.log"
site=$(sed -n '/^\[\[client.site\]\]/,$ s/^name = "\([^"]*\)".*/\1/p' config/fleet.example.toml | head -1)
run collector "$collector" --config "$dir/collector.toml" serve
token=$("$collector" --config "$dir/collector.toml" token create --site "$site" | grep -o 'wk1_[^ ]*')
for _ in $(seq 100); do
    "$agent" --config "$dir/agent.toml" enroll "$token" >/dev/null 2>"$dir/enroll.log" && break
    sleep 0.1
done
run watchkeep "$agent" --config "$dir/agent.toml" run

for peer in "${peers[@]}"; do
    case $peer in
    collectd)
        cat >"$dir/collectd.conf" <<CONF
Hostname "x"
FQDNLookup false
Interval 10
BaseDir "$dir"
PIDFile "$dir/collectd.pid"
LoadPlugin cpu
LoadPlugin load
LoadPlugin memory
LoadPlugin swap
LoadPlugin df
LoadPlugin disk
LoadPlugin interface
LoadPlugin processes
LoadPlugin uptime
LoadPlugin vmem
LoadPlugin network
<Plugin network>
  Server "127.0.0.1" "$(port 2)"
</Plugin>
CONF
        run collectd "${program[collectd]}" -f -C "$dir/collectd.conf"
        ;;
    exporter) run exporter "${program[exporter]}" --web.listen-address="127.0.0.1:$(port 3)" ;;
    zabbix)
        printf 'LogType=console\nPidFile=%s/zabbix.pid\nServer=127.0.0.1\nListenIP=127.0.0.1\nListenPort=%s\nHostname=x\nAllowRoot=1\n' \
            "$dir" "$(port 4)" >"$dir/zabbix.conf"
        run zabbix "${program[zabbix]}" -f -c "$dir/zabbix.conf"
        ;;
    monit)
        cat >"$dir/monitrc" <<CONF
set daemon 10
set idfile $dir/monit.id
set statefile $dir/monit.state
check system x
  if loadavg (5min) > 1000 then alert
  if memory usage > 99% then alert
  if cpu usage > 101% then alert
check filesystem root with path /
  if space usage > 99% then alert
  if inode usage > 99% then alert
check process collector matching "watchkeep-collector"
check host port with address 127.0.0.1
  if failed port $(port 0) then alert
check file log with path $dir/logs/app.log
  if match "ERROR" then alert
CONF
        chmod 600 "$dir/monitrc"
        run monit "${program[monit]}" -I -c "$dir/monitrc"
        ;;
    esac
done
python3 tests/footprint_peers.py "$(port 2)" "$(port 3)" "$(port 4)" >"$dir/counts" 2>"$dir/peers.log" &
counter=$!

# A program and its children.
tree() {
    echo "$1"
    local child
    for child in $(tr '\n' ' ' < <(cat /proc/"$1"/task/*/children 2>/dev/null)); do tree "$child"; done
}
# CPU ms, wake-ups (voluntary context switches), RSS KiB, PSS KiB, threads
sample() {
    local files=()
    for one in $(tree "$1"); do files+=("$one"); done
    for one in "${files[@]}"; do
        cat /proc/"$one"/task/*/schedstat | awk '{print "cpu", $1}'
        grep -h ^voluntary /proc/"$one"/task/*/status
        grep -hE '^(Rss|Pss):' /proc/"$one"/smaps_rollup
        grep ^Threads: /proc/"$one"/status
    done | awk '/^cpu/ {c += $2} /^vol/ {w += $2} /^Rss/ {r += $2} /^Pss/ {p += $2} /^Thr/ {t += $2}
        END {print c / 1e6, w, r, p, t}'
}
# Payload bytes of our agent's connection, both ways.
wire() {
    ss -Htin state established "dport = :$(port 0)" | grep -o 'bytes_\(sent\|received\):[0-9]*' | cut -d: -f2 |
        awk '{n += $1} END {print n + 0}'
}

sleep 50
declare -A begin
for name in watchkeep "${peers[@]}"; do
    kill -0 "${pid[$name]}" 2>/dev/null || fail "$name does not run: $(tail -3 "$dir/$name.log")"
    begin[$name]=$(sample "${pid[$name]}")
done
wire_begin=$(wire)
for _ in $(seq "$cycles"); do
    echo "a line that matches nothing" >>"$dir/logs/app.log"
    sleep 10
done
wire_end=$(wire)
declare -A end
for name in watchkeep "${peers[@]}"; do end[$name]=$(sample "${pid[$name]}"); done
kill "$counter"
wait "$counter" || true
count() { python3 -c "import json,sys; c=json.load(open('$dir/counts'))['$1']; print(c['$2'])"; }

values=$("$agent" sample | wc -l)
row() { # NAME LABEL VALUES BYTES-PER-CYCLE PROGRAM
    local size
    size=$(stat -Lc %s "$5" | awk '{printf "%.1f", $1 / 1e6}')
    echo "${begin[$1]} ${end[$1]}" | awk -v n="$cycles" -v label="$2" -v values="$3" -v bytes="$4" -v size="$size" '{
        ms = ($6 - $1) / n
        printf "| %s | %.1f / %.1f | %d | %.1f | %.1f | %.1f | %s | %s | %s |\n",
            label, $8 / 1024, $9 / 1024, $10, ms, ms * 0.36, ($7 - $2) / n, bytes, values, size }'
}
total=$((cycles * 10 + 50))
table=$(
    echo "| agent | RSS / PSS, MiB | threads | CPU ms per cycle | CPU s per hour | wake-ups per cycle | bytes per cycle | values | program, MB |"
    echo "|---|---|---|---|---|---|---|---|---|"
    row watchkeep "**watchkeep-agent**, TLS 1.3, 2 services, 1 log" "$values" \
        "$(((wire_end - wire_begin) / cycles))" "$agent"
    for peer in "${peers[@]}"; do
        case $peer in
        collectd) row collectd "collectd, UDP, plain" – "$(($(count collectd bytes) * 10 / total))" "${program[collectd]}" ;;
        exporter) row exporter "node_exporter, default set, HTTP, gzip" – \
            "$(($(count exporter bytes) / $(count exporter cycles)))" "${program[exporter]}" ;;
        zabbix) row zabbix "zabbix_agentd, asked, plain" "$(count zabbix values)" \
            "$(($(count zabbix bytes) / $(count zabbix cycles)))" "${program[zabbix]}" ;;
        monit) row monit "monit, 5 checks, sends nothing" – 0 "${program[monit]}" ;;
        esac
    done
)
[ "$(echo "$table" | wc -l)" -eq $((3 + ${#peers[@]})) ] || fail "a row is missing: $(cat "$dir/peers.log")"
echo "$table"
[ -z "$print" ] || exit 0
python3 - "$table" <<'PY'
import re, sys
path = "docs/benchmarks.md"
text = open(path).read()
new, found = re.subn(r"(<!-- footprint: .*? -->\n).*?(<!-- end -->)",
                     lambda m: m[1] + sys.argv[1] + "\n" + m[2], text, flags=re.S)
assert found == 1, "docs/benchmarks.md lacks its marks for this table"
open(path, "w").write(new)
PY
