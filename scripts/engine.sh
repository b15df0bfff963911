#!/bin/sh
# Make sure that a Docker engine answers. Where none does, root on Debian or Ubuntu gets the
# distribution's docker.io, started; anybody else gets the one line to run.
set -eu
cd "$(dirname "$0")/.."

answers() {
  .venv/bin/python -c 'from perry.workspace.engine import Engine; Engine.connect()' 2>/dev/null
}

on_debian_as_root() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null
}

install() {
  missing=
  for package in "$@"; do
    dpkg-query --show --showformat='${Status}\n' "$package" 2>/dev/null \
      | grep -q 'ok installed' || missing="$missing $package"
  done
  [ -n "$missing" ] || return 0
  echo "Installing:$missing"
  export DEBIAN_FRONTEND=noninteractive
  dpkg --configure --pending </dev/null >/dev/null # what an interrupted run may have left
  apt-get update -qq -o DPkg::Lock::Timeout=60
  # shellcheck disable=SC2086 - a list of package names
  apt-get install --yes -qq --no-install-recommends -o DPkg::Lock::Timeout=60 $missing \
    </dev/null >/dev/null
}

start() {
  if [ -d /run/systemd/system ]; then
    systemctl start docker
  else
    setsid dockerd </dev/null >/var/log/dockerd.log 2>&1 &
  fi
}

if on_debian_as_root; then
  # The base image's packages, should no registry answer; the tests' other Debian releases too.
  install mmdebstrap debian-archive-keyring \
    || echo "They can't be installed, which matters only where no image registry answers." >&2
fi
if answers; then exit 0; fi
if [ -n "${DOCKER_HOST:-}" ] || ! on_debian_as_root; then
  echo "No Docker engine answers. Run: sudo apt-get install docker.io && sudo systemctl start docker" >&2
  exit 1
fi
echo "No Docker engine answers here: installing the distribution's docker.io and starting dockerd"
install docker.io
answers || start
tries=0
until answers; do
  tries=$((tries + 1))
  if [ $tries -gt 60 ]; then
    echo "dockerd did not answer within a minute; its log ends:" >&2
    tail -n 20 /var/log/dockerd.log >&2 || true
    exit 1
  fi
  sleep 1
done
