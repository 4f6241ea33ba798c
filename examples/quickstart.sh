#!/bin/sh
# From a bare Debian to generated images in five minutes: installs what is missing, builds, trains, samples.
#
#   sh examples/quickstart.sh                  # Fashion-MNIST, from the Debian package dataset-fashion-mnist
#   sh examples/quickstart.sh --data DIR       # any folder with four IDX files, such as MNIST
#   sh examples/quickstart.sh --help           # all options
set -eu
started=$(date +%s)
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
# shellcheck source=cmake/packages.sh
. "$root/cmake/packages.sh"

packages="$dm_packages_build $dm_packages_data"
for argument in "$@"; do
    case $argument in --data | --data=*) packages=$dm_packages_build ;; esac
done
# shellcheck disable=SC2086 # a list of words
dm_install $packages

if [ ! -f "$build/build.ninja" ] && [ ! -f "$build/Makefile" ]; then
    if command -v ninja > /dev/null; then export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"; fi
    cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DDM_TESTS=OFF > /dev/null
fi
cmake --build "$build" --target example-quickstart example-sample

# Five minutes in all, but enough to train when the installation took long.
minutes=$(LC_ALL=C awk -v used=$(($(date +%s) - started)) 'BEGIN { m = 4.75 - used / 60; print (m < 2.5 ? 2.5 : m) }')
program=$build/examples/quickstart
case $program in "$PWD"/*) program=${program#"$PWD"/} ;; esac
exec "$program" --minutes "$minutes" "$@"
