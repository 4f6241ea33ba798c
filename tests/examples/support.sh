# Sourced by the tests of the examples: SCRIPT DIRECTORY_OF_EXAMPLES PICTURES. Works in a directory of its own, with
# data/ (two classes, 8 x 8).
set -eu
bin=$1 pictures=$2 # shellcheck disable=SC2034 # of the scripts
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$pictures" make data

die() { echo "$*" >&2; exit 1; }

# run PROGRAM ARGUMENT...: must succeed; what it prints is in ./printed
run() {
    example=$1
    shift
    "$bin/$example" "$@" > printed 2> messages || { cat messages >&2; die "$example $*: status $?"; }
}

# printed PATTERN: the last run printed it
printed() { grep -q -e "$1" printed || { cat printed messages >&2; die "\"$1\" was not printed"; }; }

# refused PROGRAM WORD ARGUMENT...: status 2, and a message with the word
refused() {
    example=$1 word=$2
    shift 2
    status=0
    "$bin/$example" "$@" > printed 2> messages || status=$?
    [ "$status" = 2 ] || { cat messages >&2; die "$example $*: expected status 2, got $status"; }
    head -n 1 messages | grep -q -e "$word" || { cat messages >&2; die "$example $*: the message does not name $word"; }
}

# tiny OUT ARGUMENT...: trains a network of 8 x 8 colour images for a moment
tiny() {
    out=$1
    shift
    run train_ddpm --data data --size 8 --out "$out" --base 8 --mult 1,2 --groups 4 --head 8 --attention 1 --batch 4 \
        --steps 4 --warmup 0 --ema 0 --validation-every 4 --threads 1 "$@"
}
