# shellcheck shell=bash
# For the scripts of long tests: builds the programs and the end-to-end tests and copies them to a
# directory of their own, $programs, so that a long run goes on while the working tree changes.

programs=$(mktemp -d)
trap 'rm -rf "$programs"' EXIT
cargo build --locked --workspace --all-targets
cargo test --locked --workspace --test it --test machine --no-run 2>&1 |
    tee "$programs/build"
for test in it machine; do
    built=$(sed -n "s/.*Executable $test\/.*(\(.*\))\$/\1/p" "$programs/build")
    cp "$built" "$programs/$test"
done
cp "$(dirname "$built")"/../watchkeep-{collector,agent} "$programs"
