#!/bin/sh
# Everything that docs/gallery.md shows: trains a DDPM UNet on Fashion-MNIST and one on colour emoji, measures
# both, and draws what four samplers make of the same noise in 10, 20 and 50 steps.
#
#   sh examples/gallery.sh [DIR]     # default: out/gallery
#
# Three quarters of an hour of processor time. Ctrl-C stops it; the same command goes on where it was.
set -eu
case ${1:-} in
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "gallery.sh: expected a folder, got $1" >&2; exit 2 ;;
esac
[ $# -le 1 ] || { echo "usage: sh examples/gallery.sh [DIR]" >&2; exit 2; }
out=${1:-out/gallery}
root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build
# shellcheck source=cmake/packages.sh
. "$root/cmake/packages.sh"

# shellcheck disable=SC2086 # lists of words
dm_install $dm_packages_build $dm_packages_data
if [ ! -f "$build/build.ninja" ] && [ ! -f "$build/Makefile" ]; then
    if command -v ninja > /dev/null; then export CMAKE_GENERATOR="${CMAKE_GENERATOR:-Ninja}"; fi
    cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DDM_TESTS=OFF > /dev/null
fi
cmake --build "$build" --target example-train_ddpm example-evaluate

# run NAME DATA STEPS [options of evaluate]
run() {
    name=$1 data=$2 steps=$3
    shift 3
    mkdir -p "$out/$name"
    echo "== $name"
    resume=
    [ ! -f "$out/$name/ddpm.safetensors" ] || resume=--resume
    if [ ! -f "$out/$name/trained" ]; then
        "$build/examples/train_ddpm" --data "$data" --out "$out/$name" --steps "$steps" --batch 16 --lr 1e-3 \
            --warmup 200 --ema 0.999 --validation-every 1000 $resume
        touch "$out/$name/trained"
    fi
    "$build/examples/evaluate" --data "$data" --checkpoint "$out/$name/ddpm.safetensors" --out "$out/$name" \
        --samplers euler_a,ddim,dpmpp_2m,unipc --per-class 10 --bits-timesteps 0 "$@"
}

run fashion /usr/share/datasets/fashion-mnist 5000 --bits-images 64
[ -d "$out/emoji-data/train" ] || sh "$root/examples/emoji.sh" "$out/emoji-data"
run emoji "$out/emoji-data" 5000 --bits-images 32 --classifier-steps 400
