#!/usr/bin/env bash
# Debian packages that some tests use. Installed only as root and with apt; where they are missing
# those tests are skipped and say so.
set -euo pipefail

wanted=(dataset-fashion-mnist shellcheck)
missing=()
for package in "${wanted[@]}"; do
    dpkg -s "$package" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    echo "installing ${missing[*]}" >&2
    { apt-get -qq update && apt-get -qq install -y "${missing[@]}"; } >/dev/null 2>&1 ||
        echo "could not install ${missing[*]}; the tests that need them are skipped" >&2
fi
