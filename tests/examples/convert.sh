#!/bin/sh
# A checkpoint becomes a directory of diffusers and comes back, with its noise schedule.
# shellcheck source=tests/examples/support.sh
. "$(dirname "$0")/support.sh"
tiny model --ema 0
sample() { run sample --steps 4 --count 2 --class 1 --threads 1 "$@"; }

run convert --from model/ddpm.safetensors --to there
printed 'wrote there/scheduler_config.json'
grep -q '"DDPMScheduler"' there/scheduler_config.json || die "another scheduler than DDPM's"
grep -q '"v_prediction"' there/scheduler_config.json || die "another prediction type"
grep -q '"sample_size": 8' there/config.json || die "another size"
run convert --from there --to back/model.safetensors
run convert --from back/model.safetensors --to again --size 8
cmp there/config.json again/config.json
cmp there/diffusion_pytorch_model.safetensors again/diffusion_pytorch_model.safetensors
cmp there/scheduler_config.json again/scheduler_config.json

# The same images from all of them, by the sampler of the file or another.
sample --checkpoint model/ddpm.safetensors --sampler ddpm --out a
sample --pretrained there --null-class --out b
sample --checkpoint back/model.safetensors --null-class --size 8 --out c
cmp a/samples.png b/samples.png
cmp a/samples.png c/samples.png
sample --checkpoint model/ddpm.safetensors --sampler dpmpp_2m --spacing leading --out a
sample --pretrained there --sampler dpmpp_2m --spacing leading --out b
cmp a/samples.png b/samples.png
rm there/scheduler_config.json # DDPMScheduler's linear schedule and epsilon now
sample --pretrained there --sampler dpmpp_2m --spacing leading --out b
! cmp -s a/samples.png b/samples.png || die "a lost scheduler_config.json changed nothing"

# 16 bits, several files, another class of scheduler
run convert --from there --to copy
cmp there/config.json copy/config.json || die "a directory's copy has another config.json"
run convert --from model/ddpm.safetensors --to half --dtype bf16 --shard 1 --sampler unipc
grep -q UniPCMultistepScheduler half/scheduler_config.json || die "another scheduler than UniPC's"
sample --pretrained half --out d
for process in edm flow; do
    tiny $process --process $process
run convert --from $process/ddpm.safetensors --to $process/there
    sample --checkpoint $process/ddpm.safetensors --no-clip --out a # these classes of diffusers never clip
    sample --pretrained $process/there --out b
    cmp a/samples.png b/samples.png
done

# The same network with vectors as labels, its table a tensor that nobody reads: they cannot be typed.
LC_ALL=C sed -e 's/class_embedding.weight/scheduler.not_a_weight/g' -e 's/class_embed_type=1/class_embed_type=3/' \
    model/ddpm.safetensors > vectors.safetensors
run convert --from vectors.safetensors --to vectors --size 8
grep -q '"class_embed_type": "identity"' vectors/config.json || die "another class_embed_type"
refused sample 'vector of 32 numbers' --pretrained vectors --out e
refused sample 'vector of 32 numbers' --pretrained vectors --class 1 --out e
refused sample 'vector of 32 numbers' --checkpoint vectors.safetensors --out e
refused sample guidance --pretrained vectors --class none --guidance 2 --out e
run sample --pretrained vectors --class none --sampler ddpm --steps 4 --count 2 --out e
run sample --checkpoint vectors.safetensors --class none --sampler ddpm --steps 4 --count 2 --out f
cmp e/samples.png f/samples.png

refused convert from --to x.safetensors
refused convert sampler --from model/ddpm.safetensors --to there --sampler no_such
refused convert edm --from model/ddpm.safetensors --to there --sampler edm
refused sample pretrained --pretrained model/ddpm.safetensors
