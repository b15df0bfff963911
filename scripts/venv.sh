#!/bin/sh
# Make .venv with perry and all that developing it needs, pinned by requirements/dev.txt.
# Killed at any point and run again, it goes on: the stamp is written last.
set -eu
cd "$(dirname "$0")/.."
wanted=$(cksum < requirements/dev.txt)
if [ "$(cat .venv/complete 2>/dev/null || true)" = "$wanted" ]; then exit 0; fi

python=
for candidate in python3 python3.13 python3.12 python3.11; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=$candidate
    break
  fi
done
if [ -z "$python" ]; then
  echo "perry needs Python 3.11 or newer: sudo apt-get install python3" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  install="apt-get install --yes python3-venv"
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "This Python can't make virtual environments yet: $install"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive $install -qq >/dev/null
  else
    echo "This Python can't make virtual environments yet. Run: sudo $install" >&2
    exit 1
  fi
fi
echo "Making the virtual environment .venv ($("$python" --version))"
[ -e .venv/complete ] || rm -rf .venv
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
  --requirement requirements/dev.txt
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
  --no-build-isolation --editable .
printf '%s' "$wanted" > .venv/complete
