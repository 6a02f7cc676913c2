#!/bin/sh
# Lays the sources of the libraries that a self-contained binary holds (make gpu-pack) under FOLDER:
# `sh tools/sources.sh FOLDER`. They are those of the Debian 12 packages that every other build links
# with, fetched by apt and pinned by hash. Needs no root: what apt keeps for this is under FOLDER too.
set -eu

pinned='
84ce1c2d0be3a9863935137969dcec6970125caac032f82474640bfc81463583  fmtlib_9.1.0+ds1.orig.tar.gz
620ca6842b5c21014470bd42eb4716024674214fb973b5ffa3aaea33310ad327  spdlog_1.10.0+ds.orig.tar.xz
156b1bc5eb0561b2bd166b46d191fd3d95a3e709cc63761477d3b7aec2b6e9ed  simdjson_3.0.1.orig.tar.gz
566fc77315878473d9a6bd815f7de78c73734acdcb745c3dde8579560ac5440e  highway_1.0.3.orig.tar.gz'

folder=${1:?usage: sh tools/sources.sh FOLDER}
mkdir -p "$folder"
cd "$folder"
here=$PWD
[ "$(cat done 2>/dev/null)" != "$pinned" ] || exit 0
command -v apt-get >/dev/null || { echo "sources: needs Debian 12 (apt-get)" >&2; exit 1; }

# This machine's own package sources, asked for sources instead.
mkdir -p apt/lists/partial apt/cache/archives/partial apt/parts archives
! test -f /etc/apt/sources.list.d/debian.sources ||
  sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >apt/parts/debian.sources
! test -f /etc/apt/sources.list ||
  sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >apt/parts/debian.list

names=$(echo "$pinned" | sed -n 's/.*  \([a-z]*\)_.*/\1/p')
apt() {
  apt-get -qq -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$here/apt/parts" \
    -o Dir::State::lists="$here/apt/lists" -o Dir::Cache="$here/apt/cache" \
    -o APT::Sandbox::User=root "$@"
}
echo "sources: fetching" $names
apt update
(cd archives && apt source --download-only $names)
(cd archives && echo "$pinned" | sed 1d | sha256sum --check --quiet -)

echo "$pinned" | sed 1d | while read -r _ archive; do
  name=${archive%%_*}
  rm -rf "$name"
  mkdir "$name"
  tar -xf "archives/$archive" -C "$name" --strip-components=1
done
echo "$pinned" >done
