#!/usr/bin/env bash
# The web pages' story in a real browser, on this machine: starts `quickstart` from the programs
# built for the tests, watches a process, lets story.mjs drive the pages and end that process.
# The last line counts: "N passed, M failed". Screenshots go to $STORY_SHOTS, if it is set.
#
#   STORY_BIN   where the programs are, default target/debug
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$(realpath "${STORY_BIN:-target/debug}")
for program in watchkeep-collector watchkeep-agent; do
    if [ ! -x "$bin/$program" ]; then
        echo "$bin/$program is missing: run \`cargo build\` first" >&2
        exit 2
    fi
done
work=$(mktemp -d)
collector=
victim=
# Reached by the trap.
# shellcheck disable=SC2317
finish() {
    # SIGTERM: the agent says goodbye, the collector closes its store.
    # The story may have ended while the collector was held up.
    [ -z "$collector" ] || kill -CONT "$collector" 2>/dev/null || true
    [ -z "$collector" ] || kill "$collector" 2>/dev/null || true
    [ -z "$collector" ] || wait "$collector" 2>/dev/null || true
    [ -z "$victim" ] || kill "$victim" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

(cd tests/browser && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >"$work/npm" 2>&1) ||
    { cat "$work/npm" >&2; exit 2; }
read -r agents web < <(node -e '
const net = require("net"), free = () => new Promise((done) => {
  const server = net.createServer().listen(0, "127.0.0.1", () => {
    const { port } = server.address(); server.close(() => done(port));
  });
});
Promise.all([free(), free()]).then((ports) => console.log(ports.join(" ")));')

cp "$(command -v sleep)" "$work/wk-victim"
"$work/wk-victim" 3600 &
victim=$!
mkdir "$work/data"
cat >"$work/data/collector.toml" <<EOF
data_dir = "$work/data"
[agents]
listen = "127.0.0.1:$agents"
public_url = "https://localhost:$agents"
[web]
listen = "127.0.0.1:$web"
public_url = "https://localhost:$web"
[policy]
interval_ms = 2000
services = [
  { type = "process", name = "wk-victim" },
  { type = "tcp", address = "127.0.0.1:$web" },
]
EOF
"$bin/watchkeep-collector" quickstart --data-dir "$work/data" --agent-port "$agents" \
    --web-port "$web" >"$work/out" 2>"$work/log" &
collector=$!
for _ in $(seq 600); do
    password=$(sed -n 's/^ *Password *\([^ ]*\).*/\1/p' "$work/out")
    [ -z "$password" ] || break
    kill -0 "$collector" 2>/dev/null || break
    sleep 0.1
done
if [ -z "$password" ]; then
    echo "the collector did not start:" >&2
    cat "$work/out" "$work/log" >&2
    exit 2
fi
code=0
STORY_URL="https://localhost:$web" STORY_PASSWORD="$password" \
    STORY_NEW_PASSWORD="four unrelated words here" STORY_BREACH_PID="$victim" \
    STORY_WATCH="tcp:127.0.0.1:$agents" STORY_COLLECTOR_PID="$collector" \
    node tests/browser/story.mjs >"$work/story" 2>"$work/trouble" || code=$?
if [ "$code" != 0 ]; then
    cat "$work/trouble" >&2
    echo "The collector's log ends:" >&2
    tail -n 30 "$work/log" >&2
fi
cat "$work/story"
exit "$code"
