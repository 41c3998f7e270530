#!/usr/bin/env bash
# Chromium for the tests of the page, where apt-get and the rights to use it are at hand. Never fails: without it
# those tests are skipped, and say so.
set -uo pipefail

command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; } >/dev/null && exit 0

hint() { echo "note: no Chromium, so the page's browser tests are skipped (Debian: apt-get install chromium chromium-driver)"; exit 0; }

root=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root="sudo -n"; else hint; fi
fi
command -v apt-get >/dev/null || hint
echo "Chromium is missing: installing it for the tests of the page (apt-get)"
# A mirror that hangs must not hold up the tests.
timeout 60 $root apt-get update -qq >/dev/null 2>&1
timeout 180 $root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null 2>&1
hash -r
command -v chromedriver >/dev/null || hint
exit 0
