#!/usr/bin/env bash
# Finds Java 17 or 21 for Spark, and installs it where a package manager and the rights to use it are at hand.
set -euo pipefail

# The major version of a `java`, or nothing.
major() { "$1" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1; }

found=""
java="${JAVA_HOME:+$JAVA_HOME/bin/}java"
if command -v "$java" >/dev/null 2>&1; then
    found=$(major "$java")
    [ "${found:-0}" -ge 17 ] && exit 0
fi

as_root=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then as_root="sudo -n"; else as_root="none"; fi
fi
if [ -z "${JAVA_HOME:-}" ] && [ "$as_root" != none ]; then
    echo "Java 17 or 21 is missing: installing it"
    if command -v apt-get >/dev/null; then
        $as_root apt-get update -qq >/dev/null && $as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null || true
    elif command -v dnf >/dev/null; then
        $as_root dnf install -y -q java-17-amazon-corretto-headless >/dev/null 2>&1 ||
            $as_root dnf install -y -q java-17-openjdk-headless >/dev/null || true
    fi
    hash -r
    if command -v java >/dev/null 2>&1 && [ "$(major java)" -ge 17 ]; then exit 0; fi
fi
echo "error: Spark needs Java 17 or 21, and ${JAVA_HOME:+JAVA_HOME=$JAVA_HOME has }${found:+found version }${found:-none}." \
    "Install it (Debian: apt-get install openjdk-17-jre-headless; macOS: brew install openjdk@17) or set JAVA_HOME." >&2
exit 1
