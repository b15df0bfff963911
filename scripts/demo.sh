#!/bin/sh
# The main job, as a person would do it: a workspace, sessions in it, and one changing live.
# Interrupted and run again, it goes on: every step makes right what it finds.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
name=perry-demo
log=.claude/projects/-home-workspace-shop/5f0c1a52-6a0e-4b7e-9b3c-2f1d0c9a7e11.jsonl

say() { printf '\n# %s\n' "$*"; }
run() {
  printf '$ %s\n' "$*"
  "$@"
}

say 'A workspace with a healthy worker in it (the first time, its image is built)'
run perry workspace init "$name"

say 'Two coding agents have worked in it: their sessions are files in its home'
tar --create --directory scripts/demo-home . \
  | perry workspace exec "$name" -- tar --extract --no-same-owner --overwrite
run perry workspace exec "$name" -- sh -c 'cd && find .claude .local -name "*.json*" | sort'

say 'The host sees them'
run perry session list --workspace "$name"
run perry session show 5f0c --workspace "$name"

say 'A coding agent goes on: a line is appended in the workspace, and the host sees that too'
for words in 'Now the same for the wish list.' 'And show how many things are in it.'; do
  line=$(printf '{"type":"user","uuid":"%s","timestamp":"%s","message":{"role":"user","content":"%s"}}' \
    "$(cat /proc/sys/kernel/random/uuid)" "$(date -u +%Y-%m-%dT%H:%M:%S.000Z)" "$words")
  echo "$line" | perry workspace exec "$name" -- sh -c "cat >> ~/'$log'"
  run perry session list --workspace "$name" --agent claude
done

say "Done. Look around with 'perry workspace shell $name' (perry is in .venv/bin),"
echo "  and take it away with 'perry workspace remove $name'."
