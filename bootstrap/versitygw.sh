#!/usr/bin/env bash
# Installs versitygw into .emulators/bin: an S3 server with real conditional writes, for the tests. Needs Go.
# https://github.com/versity/versitygw (Apache-2.0)
set -euo pipefail

version=v1.8.0
folder="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/.emulators/bin"

[ -x "$folder/versitygw" ] && exit 0
command -v go >/dev/null || { echo "versitygw is built with Go, which is not installed" >&2; exit 1; }
GOBIN="$folder" go install "github.com/versity/versitygw/cmd/versitygw@$version"
