#!/usr/bin/env bash
# A job is one `alens fit STORE LENSES`, with one process for each line of $PBS_NODEFILE. PBS gives a script no
# arguments, so variables say what to run:
#
#   qsub -v STORE=CACHE,LENSES=lenses,CONFIG=gpt2-all.toml pbs.sh
#
# In an array, each subjob is a fit of its own: subjob 7 fits layer 7 into LENSES/layer-07.
#
#   qsub -J 0-11 -v STORE=CACHE,LENSES=lenses,CONFIG=gpt2-layer.toml pbs.sh
#   qsub -v TASK=7,STORE=CACHE,LENSES=lenses,CONFIG=gpt2-layer.toml pbs.sh     (one of them alone)
#
# Variables, for `qsub -v`:
#   STORE         the cache.
#   LENSES        the directory to write.
#   CONFIG        the TOML file with the options of alens fit.
#   OPTIONS       more options, in the quoting of a shell: --zero 1 --device cuda.
#   TASK          the index, when there is no array. Neither: one fit of all the layers that CONFIG names.
#   LAYERS        what the subjobs of an array fit, a word a subjob, such as "0-3 4-7 8-11": subjob 1 fits layers 4 to 7
#                 into LENSES/layers-4-7. Default: the index is the layer.
#   MAX_MINUTES   save and stop after so many minutes, and submit again. PBS gives no warning before the time limit.
#   MAX_RESTARTS  submit again at most so often. Default: 100.
#   MASTER_ADDR   where the processes find each other. Default: the first node of the job; 127.0.0.1 on one node.
#   MASTER_PORT   Default: a port that follows from the number of the job.
#   ALENS         the command to run, such as the path of .venv/bin/alens. Default: alens.
#   SCRIPT        this file, as seen from the directory where qsub ran. Default: pbs.sh.
#
# Write resources, queue and account as directives here, not as options of qsub: a job that submits itself again
# repeats this file and the variables, nothing else. Four processes on each of two nodes, a GPU each:
#   select=2:ncpus=16:mpiprocs=4:ngpus=4

#PBS -N alens-fit
#PBS -S /bin/bash
#PBS -l select=1:ncpus=4:mpiprocs=1
#PBS -l walltime=04:00:00
#PBS -r y
#PBS -j oe

set -euo pipefail

say() {
    echo "pbs.sh: $1" >&2
}

refuse() {
    say "$1"
    exit 2
}

# PBS starts in the home directory.
cd "$PBS_O_WORKDIR"
SCRIPT=${SCRIPT:-pbs.sh}
[ -f "$SCRIPT" ] || refuse "$SCRIPT is not in $PBS_O_WORKDIR: run qsub beside it, or say where it is with -v SCRIPT=..."
[ -n "${STORE:-}" ] || refuse "STORE is missing: name the cache with -v STORE=..."
[ -n "${LENSES:-}" ] || refuse "LENSES is missing: name the directory to write with -v LENSES=..."
TASK=${PBS_ARRAY_INDEX:-${TASK:-}}

options=()
[ -z "${CONFIG:-}" ] || options+=(--config "$CONFIG")
# The user's own words, split as the user's shell would split them: a value may hold spaces.
eval "options+=(${OPTIONS:-})"
lenses=$LENSES
if [ -n "$TASK" ]; then
    [[ $TASK =~ ^(0|[1-9][0-9]*)$ ]] || refuse "TASK is '$TASK': it must be a whole number from 0 on"
    layers=$TASK
    if [ -n "${LAYERS:-}" ]; then
        read -ra groups <<< "$LAYERS"
        [ "$TASK" -lt "${#groups[@]}" ] || refuse "there is no task $TASK: \
LAYERS has ${#groups[@]} words, for tasks 0 to $((${#groups[@]} - 1))"
        layers=${groups[TASK]}
    fi
    [[ $layers =~ ^[0-9]+([-,][0-9]+)*$ ]] || refuse "LAYERS has the word '$layers': write layers as 7 or 4-7 or 0,2"
    if [[ $layers =~ ^[0-9]+$ ]]; then
        lenses+=/layer-$(printf %02d "$((10#$layers))")
    else
        lenses+=/layers-$layers
    fi
    options+=(--layers "$layers")
fi
[ -z "${MAX_MINUTES:-}" ] || options+=(--max-minutes "$MAX_MINUTES")
fit=("${ALENS:-alens}" fit "$STORE" "$lenses" "${options[@]}")

# One line a process; without the file, one process.
nodes=()
[ ! -f "${PBS_NODEFILE:-}" ] || mapfile -t nodes < "$PBS_NODEFILE"
size=${#nodes[@]}
here=0
for node in "${nodes[@]}"; do
    [ "$node" != "${nodes[0]}" ] || here=$((here + 1))
done
# Where all processes are on one node, they meet where no other reaches them.
meet=127.0.0.1
[ "$here" -eq "$size" ] || meet=${nodes[0]}
# The last bits of sums depend on the number of threads: it is what was asked for, not what the node has.
threads=$((${NCPUS:-1} / (here > 1 ? here : 1)))
export OMP_NUM_THREADS=$((threads > 1 ? threads : 1))
# Compute nodes seldom have network. A fit needs none.
export HF_HUB_OFFLINE=1

# alens puts it when it stopped on request and the state is saved. One of an earlier run says nothing of this one.
marker=$lenses/stopped.json
rm -f -- "$marker"

# Run process I on the node of line I, in a background process of its own, and end with its exit code. pbsdsh names no
# rank, takes neither environment nor directory along, and ends with 0: it prints the code of what it ran. GPUs and
# temporary directories are those of a node: on another, what pbsdsh gives there counts.
start() {
    local rank=$1 local_rank=0 before name number said environment=()
    for ((before = 0; before < rank; before++)); do
        [ "${nodes[before]}" != "${nodes[rank]}" ] || local_rank=$((local_rank + 1))
    done
    for name in $(compgen -e); do
        [[ $name != PBS_* && $name != HOSTNAME ]] || continue
        [[ ${nodes[rank]} == "${nodes[0]}" || ! $name =~ ^(.*_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL|TMPDIR)$ ]] || continue
        environment+=("$name=${!name}")
    done
    # A port below those that systems give away by themselves; two jobs on one node seldom meet.
    number=${PBS_JOBID%%[^0-9]*}
    environment+=(
        RANK="$rank" WORLD_SIZE="$size" LOCAL_RANK="$local_rank" MASTER_ADDR="${MASTER_ADDR:-$meet}"
        MASTER_PORT="${MASTER_PORT:-$((10000 + (number * 131 + ${TASK:-0}) % 20000))}"
    )
    # shellcheck disable=SC2016
    said=$(pbsdsh -n "$rank" -- /bin/bash -c 'cd "$1" && shift && exec /usr/bin/env "$@"' alens-fit \
        "$PWD" "${environment[@]}" "${fit[@]}") || exit
    if [[ $said =~ "exit status "(-?[0-9]+) ]]; then
        say "process $rank: ${BASH_REMATCH[0]}"
        exit "$((BASH_REMATCH[1] % 256 ? BASH_REMATCH[1] & 255 : 1))"
    fi
}

code=0
if [ "$size" -le 1 ]; then
    env -u MASTER_ADDR -u MASTER_PORT "${fit[@]}" || code=$?
else
    running=() end=
    for ((rank = 0; rank < size; rank++)); do
        start "$rank" &
        running[rank]=$!
    done
    while [ "${#running[@]}" -gt 0 ]; do
        for rank in "${!running[@]}"; do
            if ! kill -0 "${running[rank]}" 2> /dev/null; then
                one=0
                wait "${running[rank]}" || one=$?
                [ "$one" -le "$code" ] || code=$one
                unset "running[rank]"
            fi
        done
        # When a process fails, the others get a minute to end by themselves. PBS ends what outlives this script.
        if [ "$code" -ne 0 ]; then
            end=${end:-$((SECONDS + 60))}
            [ "$SECONDS" -lt "$end" ] || break
        fi
        sleep 1
    done
fi

# The marker says that all processes stopped on request. Only the server may requeue a job, so the job submits
# itself anew, one subjob alone. qsub takes the values from the environment: commas and quotes in them do no harm.
if [ -e "$marker" ]; then
    RESTARTS=${RESTARTS:-0} MAX_RESTARTS=${MAX_RESTARTS:-100}
    if [ "$RESTARTS" -ge "$MAX_RESTARTS" ]; then
        say "the fit of $lenses stopped and was submitted again $RESTARTS times, no more: submit it again"
    else
        RESTARTS=$((RESTARTS + 1))
        say "the fit of $lenses stopped: submitted again, $RESTARTS of $MAX_RESTARTS"
        export STORE LENSES SCRIPT RESTARTS MAX_RESTARTS TASK
        names=STORE,LENSES,SCRIPT,RESTARTS,MAX_RESTARTS
        for name in TASK CONFIG OPTIONS LAYERS MAX_MINUTES MASTER_ADDR MASTER_PORT ALENS; do
            [ -z "${!name:-}" ] || names+=",$name"
        done
        qsub -v "$names" "$SCRIPT" || say "the fit of $lenses cannot be submitted: submit it again"
    fi
fi
exit "$code"
