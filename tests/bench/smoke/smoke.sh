#!/bin/sh
# Every measure of dm-bench runs and prints JSON lines with all that they must hold. No time is judged.
#   smoke.sh dm-bench dm-bench-json
set -eu
bench=$1 json=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

check() { # lines kind dm-bench's arguments
    lines=$1 kind=$2
    shift 2
    "$bench" "$@" --threads 2 --batch 2 --seconds 0.05 --side 8 --steps 2 --sgemm 48 > "$work/out"
    "$json" "$lines" "$kind" < "$work/out" || { echo "dm-bench $*"; cat "$work/out"; exit 1; }
}

for net in lecture compact; do
    check 1 flops unet-train --net $net
    check 1 flops unet-infer --net $net
    check 30 layers unet-layers --net $net
    check 30 layers unet-layers --net $net --storage bf16
    check 2 flops sample --net $net
    check 2 flops sample --net $net --storage bf16
    check 3 times optimizer --net $net
    check 3 times startup --net $net
done
check 1 flops ddpm-unet-train
check 1 flops ddpm-unet-infer
check 1 flops ddpm-unet-infer --net cifar
check 1 sgemm sgemm
check 16 sde sde # three processes and normals, f32 and f64, on one thread and two
for name in brownian drift geometric normals increments; do grep -q "\"sde $name\"" "$work/out"; done

# DM_CONV reaches the sessions.
(export DM_CONV=direct; check 1 flops unet-infer)
grep -q '"conv": "direct"' "$work/out"
if DM_CONV=nonsense "$bench" unet-infer --seconds 0 --side 8 --sgemm 48 > "$work/out" 2> "$work/error"; then
    echo "DM_CONV=nonsense was accepted"; exit 1
fi
grep -q 'DM_CONV.*nonsense' "$work/error" || { cat "$work/error"; exit 1; }

# Wrong arguments are refused, with status 2 and the usage.
for arguments in "" "nonsense" "unet-infer --batch" "unet-infer --batch 0" "unet-infer --net big" "ddpm-unet-infer --net lecture" "sample --nonsense 1"; do
    status=0
    # shellcheck disable=SC2086 # a list of words
    "$bench" $arguments > "$work/out" 2> "$work/error" || status=$?
    if [ $status -ne 2 ] || [ -s "$work/out" ] || ! grep -q '^usage: dm-bench' "$work/error"; then
        echo "dm-bench $arguments: status $status"; exit 1
    fi
done
echo "all measures ran"
