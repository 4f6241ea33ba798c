#!/bin/sh
# Every relative link of the documentation leads to a file, and to a heading of it.
#   readme_links.sh SOURCE_DIR
set -eu
export LC_ALL=C
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# FILE TARGET, a line a link; text in fenced or indented code has none.
for file in README.md lib/README.md docs/*.md tests/*.md; do
    [ -f "$file" ] || continue
    awk -v file="$file" '
        /^```/ { code = !code; next }
        code || /^    / { next }
        { line = $0
          gsub(/`[^`]*`/, "", line)
          while (match(line, /\]\([^)]*\)/)) {
              target = substr(line, RSTART + 2, RLENGTH - 3)
              line = substr(line, RSTART + RLENGTH)
              if (target !~ /^(https?|mailto):/) print file, target
          } }' "$file"
done > "$work/links"
[ -s "$work/links" ] || { echo "no link found"; exit 1; }

# The anchors that a Markdown file has: headings in lower case, punctuation dropped, spaces as hyphens.
anchors() {
    sed -n '/^```/,/^```$/!s/^#\{1,6\} //p' "$1" | tr 'A-Z' 'a-z' | sed -e 's/[^a-z0-9 _-]//g' -e 's/ /-/g'
}

status=0
while read -r file target; do
    path=${target%%#*} anchor=
    case $target in *'#'*) anchor=${target#*'#'} ;; esac
    if [ -n "$path" ]; then path=$(dirname "$file")/$path; else path=$file; fi
    if [ ! -e "$path" ]; then
        echo "$file: $target: no such file"
        status=1
    elif [ -n "$anchor" ] && ! anchors "$path" | grep -qxF -- "$anchor"; then
        echo "$file: $target: no such heading"
        status=1
    fi
done < "$work/links"
[ $status -ne 0 ] || echo "$(wc -l < "$work/links") links lead somewhere"
exit $status
