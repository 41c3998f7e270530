#!/usr/bin/env bash
# Installs Chromium for the tests of the report page, if apt-get is available and permitted. Never fails: without
# Chromium those tests are skipped with a message.
set -uo pipefail

command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; } >/dev/null && exit 0

hint() { echo "note: no Chromium; the browser tests of the page are skipped (Debian: apt-get install chromium chromium-driver)"; exit 0; }

root=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root="sudo -n"; else hint; fi
fi
command -v apt-get >/dev/null || hint
echo "Chromium is missing: installing it for the tests of the page (apt-get)"
# The limits keep a mirror that hangs from delaying the tests.
timeout 60 $root apt-get update -qq >/dev/null 2>&1
timeout 180 $root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null 2>&1
hash -r
command -v chromedriver >/dev/null || hint
exit 0
