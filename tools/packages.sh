#!/bin/sh
# Installs the Debian packages of the named sections of packages.txt that are not there yet:
# `sh tools/packages.sh build test`. Says what is missing, and changes nothing, where there is no apt.
set -eu
cd "$(dirname "$0")/.."

wanted=$(awk -v sections=" $* " '
  /^\[/ { name = $1; gsub(/[][]/, "", name); taken = index(sections, " " name " ") > 0; next }
  /^#/ || NF == 0 { next }
  taken { print $1 }' packages.txt | sort -u)

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "packages: not a Debian system; the build needs the equivalents of:" $wanted >&2
  exit 0
fi

missing=
for package in $wanted; do
  state=$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

root=
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "packages: not root and no sudo; as root, run: apt-get install$missing" >&2
    exit 1
  fi
  root=sudo
fi
echo "packages: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$root apt-get update -qq
# No standard input, so that nothing can ask. dpkg's lines go to a file that is shown on failure.
log=$(mktemp)
if ! $root apt-get install -y -qq --no-install-recommends $missing </dev/null >"$log" 2>&1; then
  cat "$log" >&2
  echo "packages: apt-get could not install them; needs Debian 12 (bookworm)" >&2
  exit 1
fi
rm -f "$log"
