#!/usr/bin/env bash
# Finds Java 17 or 21 for Spark; installs Java 17 if a package manager is available and permitted.
set -euo pipefail

java="${JAVA_HOME:+$JAVA_HOME/bin/}java"

# Prints the major version of the `java` that Spark would start; prints nothing if there is no java.
major() { command -v "$java" >/dev/null 2>&1 && "$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p' | head -n 1 || true; }
good() { local version; version=$(major); [ -n "$version" ] && [ "$version" -ge 17 ] && [ "$version" -le 21 ]; }

good && exit 0

root=""
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then root="sudo -n"; else root="none"; fi
fi
# JAVA_HOME is the user's choice, so no other Java is installed.
if [ -z "${JAVA_HOME:-}" ] && [ -z "$(major)" ] && [ "$root" != none ]; then
    if command -v apt-get >/dev/null; then
        echo "Java is missing: installing Java 17 (apt-get)"
        $root apt-get update -qq >/dev/null && $root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends openjdk-17-jre-headless >/dev/null || true
    elif command -v dnf >/dev/null; then
        echo "Java is missing: installing Java 17 (dnf)"
        $root dnf install -y -q java-17-amazon-corretto-headless >/dev/null 2>&1 ||
            $root dnf install -y -q java-17-openjdk-headless >/dev/null || true
    fi
    hash -r
    good && exit 0
fi
found=$(major)
if [ -n "$found" ]; then have="$java is version $found"; else have="there is no ${JAVA_HOME:+$JAVA_HOME/bin/}java"; fi
echo "error: Spark needs Java 17 or 21: $have. Install one (Debian: apt-get install openjdk-17-jre-headless;" \
    "macOS: brew install openjdk@17) and set JAVA_HOME to it." >&2
exit 1
