#!/usr/bin/env bash
# The whole path on the bundled model and text: text -> cache -> lenses -> figures -> readings.
# Usage: docs/demo.sh WORKDIR. Each command is shown before it runs. No network; about a minute on 2 cores.
# Starts anew each time: it removes WORKDIR/cache and WORKDIR/lenses, in a directory that it made itself.
set -euo pipefail

if [ $# -ne 1 ]; then
    echo "usage: docs/demo.sh WORKDIR" >&2
    exit 2
fi
work=${1%/}

# What a quicker or a longer demo changes.
rows=65536           # at 8,192 rows a shard: 8 shards
shard_rows=8192
held_out_rows=8192   # one of the 8 shards

export HF_HUB_OFFLINE=1

ours=$work/.alens-demo
if [ -e "$work" ] && [ ! -e "$ours" ] && [ -n "$(ls -A "$work")" ]; then
    echo "docs/demo.sh: $work is not empty and no earlier demo made it: name another directory" >&2
    exit 2
fi
mkdir -p "$work"
touch "$ours"
rm -rf "${work:?}/cache" "${work:?}/lenses"

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

show alens cache demo demo "$work/cache" --max-rows "$rows" --rows-per-shard "$shard_rows" --exact-teacher
show alens info "$work/cache"
show alens fit "$work/cache" "$work/lenses" --eval-rows "$held_out_rows"
show alens eval "$work/lenses" "$work/cache"
show alens read "$work/lenses" "He took her hand and" "It was a dark and stormy" --layer 3 --top 5
