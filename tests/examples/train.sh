#!/bin/sh
# Training from folders of PNGs and from IDX files: what is written, and resuming where a run stopped.
# shellcheck source=tests/examples/support.sh
. "$(dirname "$0")/support.sh"

tiny ddpm
printed '24 images of 2 classes'
printed 'steps 0 to 4 of 4'
[ "$(cat ddpm/classes.txt)" = "disc
stripes" ] || die "classes.txt: $(cat ddpm/classes.txt)"
grep -q '</svg>' ddpm/loss.svg || die "loss.svg is no picture"
tiny again
cmp ddpm/ddpm.safetensors again/ddpm.safetensors

# Ctrl-C, twice: each run goes on from where the one before stopped.
interrupted() {
    "$bin/train_ddpm" --data data --size 8 --out long --base 8 --mult 1 --groups 4 --head 8 --attention -1 --batch 4 \
        --steps 100000 --validation-every 5 --threads 1 "$@" > long.txt 2> messages &
    pid=$!
    tries=0
    until grep -q '^step ' long.txt; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || { kill -KILL $pid; die "no step of the long run in a minute"; }
        sleep 0.1
    done
    kill -INT $pid
    status=0
    wait $pid || status=$?
    [ $status = 130 ] || { cat long.txt messages >&2; die "an interrupted run: expected status 130, got $status"; }
}
interrupted
reached=$(sed -n 's/^steps 0 to \([0-9]*\) of 100000.*/\1/p' long.txt)
[ "${reached:-0}" -ge 5 ] || { cat long.txt >&2; die "the interrupted run tells no steps"; }
interrupted --resume
grep -q "^steps $reached to " long.txt || { cat long.txt >&2; die "not resumed from step $reached"; }

# A run that was stopped has the bits of one that was not.
unet="--data data/idx --channels 8,16 --middle 1 --groups 4 --time sinusoidal --classes --batch 4 --ema 0.9 --threads 1"
unet="$unet --validation 8 --process flow --density logit_normal"
# shellcheck disable=SC2086 # a list of words
{
    run train_unet $unet --out whole --steps 6
    run train_unet $unet --out parts --steps 3
    run train_unet $unet --out parts --steps 6 --resume parts/unet.safetensors
}
run convert --from whole/unet.safetensors --to whole.safetensors
run convert --from parts/unet.safetensors --to parts.safetensors
cmp whole.safetensors parts.safetensors
