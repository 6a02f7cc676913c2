#!/bin/sh
# Is BINARY ready to be copied to a machine where nothing is installed? `sh tools/check_pack.sh BINARY
# ARGUMENT...`: its size, the libraries that it asks for, and whether it runs with these arguments
# and no environment.
set -eu
binary=$1
shift
fail() {
  echo "$binary: $*" >&2
  exit 1
}

size=$(stat -c %s "$binary")
[ "$size" -lt 24000000 ] || fail "$size bytes are too many: 24 MB are allowed"

other=$(readelf -d "$binary" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' |
  grep -vE '^(libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so\.[0-9]+$' || true)
[ -z "$other" ] || fail "needs libraries beside glibc:" $other

# Ubuntu 22.04 has 2.35.
glibc=$(objdump -T "$binary" | grep -o 'GLIBC_2\.[0-9]*' | sort -Vu | tail -1)
[ "${glibc#GLIBC_2.}" -le 35 ] || fail "needs $glibc"

env -i "$binary" "$@" >/dev/null 2>&1 || fail "does not start"
echo "$binary: $((size / 1000000)) MB, needs glibc ${glibc#GLIBC_} alone"
