#!/bin/sh
# Wrong arguments: status 2, and a message that names the option.
# shellcheck source=tests/examples/support.sh
. "$(dirname "$0")/support.sh"
tiny model

for program in sample evaluate convert train_ddpm train_unet train_classifier reconstruct quickstart forward_diffusion \
    custom_denoiser denoiser_mlp sde_paths; do
    run $program --help
    printed '^usage: '
    refused $program no-such --no-such
    refused $program stray stray
done

model="--checkpoint model/ddpm.safetensors --out out --data data"
# wrong OPTION ARGUMENT...: sample refuses them and names the option
# shellcheck disable=SC2086 # a list of words
wrong() {
    option=$1
    shift
    refused sample "--$option" $model "$@"
}
wrong sampler --sampler no_such
wrong sampler --sampler ddim_inverse
wrong steps --steps 2000
wrong steps --steps -1
wrong steps --steps
wrong class --class 7
wrong class --class no_such
wrong guidance --guidance 2 --class none
wrong guidance --guidance nan
wrong guidance-rescale --guidance-rescale 0.5
wrong guidance-rescale --guidance 2 --guidance-rescale 2
wrong negative --negative 1
wrong negative --negative 9 --guidance 2
wrong classifier --classifier model/ddpm.safetensors --class none
wrong strength --strength 0.5
wrong strength --init 0 --strength 1.5
wrong init --init no_such.png
wrong init --init 12
wrong init --init -1
wrong mask --mask left
wrong mask --mask no_such --init 0
wrong resample --resample 2 --init 0
wrong resample --resample 2 --init 0 --mask left --sampler dpmpp_2m
wrong invert --invert
wrong invert --invert --init 0 --mask left
wrong invert --invert --init 0 --strength 0.5
wrong invert --invert --init 0 --sampler ddpm
wrong invert --invert --init 0 --eta 0.5
wrong interpolate --interpolate 1
wrong interpolate --interpolate 1,2,3
wrong interpolate --interpolate 1,x
wrong interpolate --interpolate 1,2 --init 0
wrong interpolate --interpolate 1,2 --count 1
wrong spacing --spacing sometimes
wrong sigmas --sigmas 3
wrong count --count 0
wrong ema --ema=1

data="--data data --size 8 --out out"
# shellcheck disable=SC2086 # a list of words
{
    refused train_ddpm --warmup $data --steps 3 --warmup 3
    refused train_ddpm --attention $data --attention 3
    refused train_ddpm --groups $data --base 8 --groups 3
    refused train_ddpm --head $data --base 8
    refused train_ddpm --batch $data --base 8 --head 8 --batch 25
    refused train_ddpm --mult $data --mult 1,
    refused train_ddpm --process $data --process quantum
    refused train_ddpm --prediction $data --process edm --prediction sample
    refused train_ddpm --schedule $data --process flow --schedule linear
    refused train_ddpm --loss $data --process edm --loss huber
    refused train_ddpm --weighting $data --process flow --weighting p2
    refused train_ddpm --variance $data --process edm --variance learned
    refused train_ddpm --importance $data --process flow --importance
    refused train_ddpm --log-mean $data --log-mean 0
    refused train_ddpm --density $data --process edm --density mode
    refused train_ddpm --gamma $data --gamma 5
    refused train_ddpm --ema-warmup $data --ema 0 --ema-warmup power
    refused train_unet --zero-snr --data data/idx --out out --zero-snr
    refused train_unet --zero-snr --data data/idx --out out --zero-snr --process flow
    refused train_classifier --warmup $data --steps 3 --warmup 3
    refused train_classifier --groups $data --channels 12
    refused train_classifier --like $data --no-noise --like model/ddpm.safetensors
    refused train_classifier --batch $data --batch 25
    refused evaluate --samplers $data --checkpoint model/ddpm.safetensors --samplers ,
    refused evaluate --steps $data --checkpoint model/ddpm.safetensors --steps 0
}
[ ! -e out ] || die "a refused run wrote something"
