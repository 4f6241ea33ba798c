#!/bin/sh
# What sample can do: each option changes what it should, and nothing else.
# shellcheck source=tests/examples/support.sh
. "$(dirname "$0")/support.sh"
tiny model --ema 0.5
class="--checkpoint model/ddpm.safetensors --threads 1 --steps 4 --class stripes"
# shellcheck disable=SC2086 # lists of words
sample() {
    out=$1
    shift
    run sample $class --out "$out" --singles "$out/single" "$@"
}
first=single/000000-class1.png

# From noise: a seed is an image, in any company.
sample plain --count 3 --seed 5
sample alone --count 3 --seed 5 --batch 1
cmp plain/samples.png alone/samples.png
sample narrow --count 3 --seed 5 --bf16
if cmp -s plain/samples.png narrow/samples.png; then die "--bf16 changed nothing"; fi
sample next --count 1 --seed 6
"$pictures" same next/$first plain/single/000001-class1.png
run sample --checkpoint model/ddpm.safetensors --steps 4 --count 2 --out all --out-idx all/idx --frames 3 --scale 1
[ -s all/denoising.png ] && [ -s all/idx/train-images-idx3-ubyte.gz ] || die "files are missing"
for sampler in ddpm ddim euler_a heun dpmpp_2m unipc pndm; do
    sample $sampler --count 1 --seed 5 --sampler $sampler
    "$pictures" shape $sampler/$first 3 8 8
done
"$pictures" differ ddpm/$first heun/$first
sample karras --count 1 --seed 5 --sampler heun --sigmas karras
"$pictures" differ karras/$first heun/$first

# Guidance
sample guided --count 1 --seed 5 --guidance 6
"$pictures" differ guided/$first plain/$first
sample rescaled --count 1 --seed 5 --guidance 6 --guidance-rescale 1
"$pictures" differ rescaled/$first guided/$first
sample negative --count 1 --seed 5 --guidance 6 --negative disc
"$pictures" differ negative/$first guided/$first
run train_classifier --data data --size 8 --out guide --like model/ddpm.safetensors --channels 8,16 --batch 8 --steps 30 \
    --warmup 0 --threads 1
printed 't=999'
sample unguided --count 1 --seed 5 --classifier guide/classifier.safetensors --classifier-scale 0
"$pictures" same unguided/$first ddpm/$first
for sampler in ddpm ddim; do
    sample classified --count 1 --seed 5 --classifier guide/classifier.safetensors --classifier-scale 50 \
        --sampler $sampler
    "$pictures" differ classified/$first $sampler/$first
done
if grep -q schedule messages; then die "the same noise schedule was taken for another"; fi
run train_classifier --data data --size 8 --out other --schedule linear --channels 8 --batch 8 --steps 2 --warmup 0
sample other --count 1 --classifier other/classifier.safetensors
grep -q 'another noise schedule' messages || die "another noise schedule went unnoticed"

# Image to image: the less noise, the nearer; a start in the middle of a step of two calls moves to its beginning.
image=data/test/disc/03.png
for sampler in ddim heun; do
    sample near --count 1 --init $image --strength 0.2 --sampler $sampler
    sample far --count 1 --init $image --strength 1 --sampler $sampler
    "$pictures" differ near/$first far/$first
done
sample number --count 1 --init 6 --data data --strength 0.2 # test images come from the classes in turn
sample same --count 1 --init $image --strength 0.2
"$pictures" same number/$first same/$first

# Inpainting: what is known stays.
sample known --count 2 --init $image --mask left
"$pictures" same known/$first $image right
"$pictures" differ known/$first $image left
sample again --count 2 --init $image --mask left --resample 3 --jump 2 --sampler ddpm
"$pictures" same again/$first $image right
sample batches --count 2 --init $image --mask left --resample 3 --jump 2 --sampler ddpm --batch 1
cmp again/samples.png batches/samples.png
"$pictures" same known/$first $image right
sample painted --count 1 --init $image --mask data/test/stripes/00.png

# Between two seeds: both ends are the seeds' own images.
sample between --count 3 --interpolate 5,7
"$pictures" same between/single/000000-class1.png plain/single/000000-class1.png
"$pictures" same between/single/000002-class1.png plain/single/000002-class1.png
"$pictures" differ between/single/000001-class1.png plain/single/000001-class1.png

# Inversion: DDIM leads back.
run sample --checkpoint model/ddpm.safetensors --steps 100 --init 0 --data data --invert --count 4 --out back --singles back
printed 'mean squared error to the real images: 0.0'
"$pictures" differ back/000000-class0.png back/000001-class1.png
