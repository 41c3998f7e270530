#!/usr/bin/env bash
# Bootstrap action for EMR on EC2: installs the release's Python environment on every node.
#
#   emr-bootstrap.sh --region REGION s3://BUCKET/PREFIX/RELEASE SHA256-OF-MANIFEST [FOLDER]
#
# Downloads manifest.json and environment.tar.gz, checks the manifest against SHA256-OF-MANIFEST, and the archive against
# the manifest, so that these files need not be trusted. REGION is the bucket's: a node has none configured, and without
# it the request goes to another region's address, which a private network does not reach. Unpacks to FOLDER/RELEASE; the
# default of FOLDER is /opt/movement. With `deploy.emr.bootstrapped: true` the steps use it. Safe to repeat: a complete environment
# is not installed again.
set -euo pipefail
umask 022  # every user of the node may read the environment

fail() { echo "emr-bootstrap: $*" >&2; exit 1; }

[ $# -ge 4 ] && [ $# -le 5 ] && [ "$1" = --region ] ||
    fail "usage: $0 --region REGION s3://BUCKET/PREFIX/RELEASE SHA256-OF-MANIFEST [FOLDER]"
region=$2 source=${3%/} wanted=$4 release=${3%/}
release=${release##*/}
target=${5:-/opt/movement}/$release
case "$source" in s3://*/*) ;; *) fail "$source: allowed: s3://BUCKET/PREFIX/RELEASE" ;; esac
[[ $wanted =~ ^[0-9a-f]{64}$ ]] || fail "$wanted: allowed: a SHA-256 in hex, the one of manifest.json"

root=""
[ "$(id -u)" = 0 ] || root="sudo"
scratch=$(mktemp -d)
trap '$root rm -rf "$scratch" "$target.part"' EXIT

# The AWS CLI uses TLS and checks certificates; an endpoint without TLS is refused.
case "${AWS_ENDPOINT_URL_S3:-${AWS_ENDPOINT_URL:-https://}}" in https://* | http://127.0.0.1:*) ;; *) fail "S3 without TLS" ;; esac
fetch() { aws s3 cp --region "$region" --only-show-errors "$source/$1" "$scratch/$1" || fail "could not fetch $source/$1"; }
check() { echo "$2  $scratch/$1" | sha256sum --check --status || fail "$source/$1: its SHA-256 is not $2"; }

fetch manifest.json
check manifest.json "$wanted"
if [ -f "$target/.sha256" ] && [ "$(cat "$target/.sha256")" = "$wanted" ]; then
    echo "emr-bootstrap: $target exists already"
    exit 0
fi
# Every node has Python, but not jq.
read -r digest python < <(python3 - "$scratch/manifest.json" <<'PYTHON'
import json, sys
manifest = json.load(open(sys.argv[1]))
print(manifest["artifacts"]["environment.tar.gz"]["sha256"], manifest["environments"]["environment.tar.gz"]["python"])
PYTHON
)
fetch environment.tar.gz
check environment.tar.gz "$digest"

$root rm -rf "$target.part"
$root mkdir -p "$target.part"
$root tar --extract --gzip --no-same-owner --file "$scratch/environment.tar.gz" --directory "$target.part"
# Compiled here, because the users that run Spark cannot write to the folder.
"$target.part/bin/python" -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$python" ||
    fail "this node has no Python $python where the environment expects it; see \`movement package --interpreter\`"
$root "$target.part/bin/python" -m compileall -q -j 0 "$target.part/lib" >/dev/null || true
echo "$wanted" | $root tee "$target.part/.sha256" >/dev/null
$root rm -rf "$target"
$root mv "$target.part" "$target"
echo "emr-bootstrap: $release is in $target"
