#!/bin/sh
# Sorts the colour emoji of the Debian package ruby-tanuki-emoji into folders by category, for train_ddpm and
# evaluate: DIR/train/CATEGORY/*.png and DIR/test/CATEGORY/*.png.
#
#   sh examples/emoji.sh DIR
#
# About every tenth emoji is for testing. One that comes in several skin tones is for testing, or training,
# with all of them.
set -eu
[ $# = 1 ] || { echo "usage: sh examples/emoji.sh DIR" >&2; exit 2; }
case $1 in -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;; -*) echo "emoji.sh: expected a folder, got $1" >&2; exit 2 ;; esac
out=$1
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=cmake/packages.sh
. "$root/cmake/packages.sh"
dm_install ruby-tanuki-emoji

gem=$(echo /usr/share/rubygems-integration/all/gems/tanuki_emoji-*)
index=$(echo "$gem"/vendor/gemojione/index-4*.json)
images=$gem/app/assets/images/tanuki_emoji
[ -f "$index" ] && [ -d "$images" ] || { echo "emoji.sh: $gem: no index or no images" >&2; exit 1; }

# In the index every emoji is {"unicode": "1F44D-1F3FB", ..., "category": "people", ...} with a line a key; its
# picture is emoji_u1f44d_1f3fb.png. Flags of countries are named by two letters instead: the regional
# indicators 1F1E6 to 1F1FF are A to Z.
awk -F'"' '
    function letter(code) { return index(code, "1F1") == 1 ? substr("ABCDEFGHIJKLMNOPQRSTUVWXYZ", hex(substr(code, 4)) - 229, 1) : "" }
    function hex(two) { two = toupper(two); return (index("0123456789ABCDEF", substr(two, 1, 1)) - 1) * 16 + index("0123456789ABCDEF", substr(two, 2, 1)) - 1 }
    $2 == "unicode" { unicode = toupper($4) }
    $2 == "category" {
        n = split(unicode, code, "-")
        name = "emoji_u" tolower(unicode); gsub("-", "_", name)
        if (n == 2 && letter(code[1]) != "" && letter(code[2]) != "") name = letter(code[1]) letter(code[2])
        print $4, name, code[1] (n == 2 && name !~ /^emoji/ ? code[2] : "")
    }' "$index" | LC_ALL=C sort -k1,1 -k3,3 -k2,2 |
    while read -r category name base; do
        [ -f "$images/$name.png" ] || continue
        case $category in modifier | places) continue ;; esac # five colours and a single picture
        echo "$category $name $base"
    done |
    awk '$3 != last { group++; last = $3 } { print (group % 10 == 0 ? "test" : "train"), $1, $2 }' |
    while read -r part category name; do
        mkdir -p "$out/train/$category" "$out/test/$category"
        cp "$images/$name.png" "$out/$part/$category/$name.png"
    done

for category in "$out"/train/*; do
    printf '%-10s %4d to train with, %3d to test\n' "${category##*/}" "$(find "$category" -name '*.png' | wc -l)" \
        "$(find "$out/test/${category##*/}" -name '*.png' | wc -l)"
done
