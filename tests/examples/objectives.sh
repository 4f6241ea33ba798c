#!/bin/sh
# Every objective: trained, sampled and measured without being told again which it was.
# shellcheck source=tests/examples/support.sh
. "$(dirname "$0")/support.sh"

# try NAME SAMPLER OPTION...: SAMPLER is one that fits the process
try() {
    name=$1 sampler=$2
    shift 2
    tiny "$name" "$@"
    run sample --checkpoint "$name/ddpm.safetensors" --steps 4 --count 1 --out "$name" --singles "$name" --threads 1
    run sample --checkpoint "$name/ddpm.safetensors" --steps 4 --count 1 --out "$name/by" --singles "$name/by" \
        --sampler "$sampler" --threads 1
    "$pictures" same "$name/000000-class0.png" "$name/by/000000-class0.png"
    "$pictures" differ "$name/000000-class0.png" data/test/disc/00.png
}
try min_snr ddim --weighting min_snr --gamma 3
try p2 ddim --weighting p2 --prediction epsilon
try huber ddim --loss huber --prediction sample
try learned ddim --variance learned_range --prediction epsilon --schedule linear
try importance ddim --variance learned --importance --ema 0.5 --ema-warmup power
try edm dpmpp_2m --process edm --log-mean -1 --ema 0.9 --ema-warmup ratio
try flow euler --process flow --density logit_normal

# A process is known again.
refused sample edm --checkpoint edm/ddpm.safetensors --sampler ddim
refused sample flow --checkpoint flow/ddpm.safetensors --sampler ddpm
refused sample invert --checkpoint flow/ddpm.safetensors --init 0 --data data --invert
refused train_classifier edm --like edm/ddpm.safetensors --data data --size 8 --batch 4
for model in edm flow; do
    run sample --checkpoint $model/ddpm.safetensors --steps 4 --count 1 --init data/test/disc/03.png --mask left \
        --class disc --out $model --singles $model/mask
    "$pictures" same $model/mask/000000-class0.png data/test/disc/03.png right
    run sample --checkpoint $model/ddpm.safetensors --steps 4 --count 2 --interpolate 1,2 --class disc --out $model
done

evaluate="--data data --size 8 --per-class 1 --steps 3 --channels 8 --classifier-steps 2 --threads 1"
# shellcheck disable=SC2086 # a list of words
{
    run evaluate --checkpoint min_snr/ddpm.safetensors --out judged $evaluate --samplers ddim,unipc --bits-images 2 \
        --bits-timesteps 3
    printed 'bits/dim of 2 test images, fixed_large variance: [0-9]'
    run evaluate --checkpoint min_snr/ddpm.safetensors --out narrow $evaluate --samplers ddim --bits-images 2 \
        --bits-timesteps 3 --bf16
    printed 'bits/dim of 2 test images, fixed_large variance: [0-9]'
    if cmp -s judged/ddim-3.png narrow/ddim-3.png; then die "--bf16 changed no picture"; fi
    [ "$(wc -l < judged/table.md)" = 5 ] || { cat judged/table.md >&2; die "table.md: expected 5 lines"; }
    [ -s judged/ddim-3.png ] && [ -s judged/unipc-3.png ] && [ -s judged/comparison.png ] || die "pictures are missing"
    run evaluate --checkpoint learned/ddpm.safetensors --out judged $evaluate --samplers ddpm --bits-images 2
    printed 'learned_range variance: [0-9]'
    run evaluate --checkpoint flow/ddpm.safetensors --out judged $evaluate
    printed 'bits/dim: not measured'
    printed 'heun 3 steps'
    refused evaluate flow --checkpoint flow/ddpm.safetensors --out judged $evaluate --samplers ddim
    refused evaluate samplers --checkpoint flow/ddpm.safetensors --out judged $evaluate --samplers euler,no_such
}
