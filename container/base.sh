#!/bin/sh
# base.sh OUT.tar: make the base of the workspace image from Debian's own packages, for an engine
# that can reach no image registry. Needs mmdebstrap (Debian and Ubuntu have it), not root.
set -eu
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
exec mmdebstrap --variant=minbase --keyring="$keyring" \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  trixie "$1"
