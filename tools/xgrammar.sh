#!/bin/sh
# Lays the sources of xgrammar, which structured output is built on, into FOLDER: `sh
# tools/xgrammar.sh FOLDER`. CMake calls it. The source package comes from PyPI by pip, pinned by hash,
# once; of it the C++ core is kept.
set -eu

version=0.2.8
hash=8305646fd2b319d6c3003f51a1665e54cbbe9cba1fb636bc41d0b46434ccbb80

folder=${1:?usage: sh tools/xgrammar.sh FOLDER}
[ "$(cat "$folder/done" 2>/dev/null)" != "$hash" ] || exit 0
mkdir -p "$folder"
cd "$folder"

# Two builds may begin at once.
exec 9>lock
flock 9
[ "$(cat done 2>/dev/null)" != "$hash" ] || exit 0

python=python3
if ! $python -m pip --version >/dev/null 2>&1; then
  $python -m venv venv || { echo "xgrammar: needs pip or venv (Debian: python3-venv)" >&2; exit 1; }
  python=venv/bin/python
fi
echo "xgrammar: fetching $version"
echo "xgrammar==$version --hash=sha256:$hash" >wanted
$python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary xgrammar \
  --require-hashes --dest . -r wanted ||
  { echo "xgrammar: PyPI is out of reach, or has another xgrammar-$version.tar.gz than that of" \
    "SHA-256 $hash" >&2; exit 1; }

rm -rf cpp include 3rdparty
tar -xzf "xgrammar-$version.tar.gz" --strip-components=1 "xgrammar-$version/cpp" \
  "xgrammar-$version/include" "xgrammar-$version/3rdparty/dlpack/include" \
  "xgrammar-$version/3rdparty/picojson" "xgrammar-$version/LICENSE"
rm -rf venv wanted
echo "$hash" >done
