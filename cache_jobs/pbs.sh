#!/usr/bin/env bash
# One subjob of an array is one worker of `alens cache`. PBS gives a script no arguments, so CONFIG says what to run:
#
#   qsub -J 0-15 -v WORKERS=16,CONFIG=gpt2-bookcorpus.toml pbs.sh
#   qsub -v WORKER=3,WORKERS=16,CONFIG=gpt2-bookcorpus.toml pbs.sh     (one worker alone)
#
# Variables, for `qsub -v`:
#   CONFIG        the TOML file with the options of alens cache.
#   WORKERS       N of `--worker I/N`.
#   WORKER        I, when there is no array.
#   OPTIONS       more options, in the quoting of a shell: --layers 11 --device cuda.
#   MAX_MINUTES   stop cleanly after so many minutes, and submit again. PBS gives no warning before the time limit.
#   MAX_RESTARTS  submit again at most so often. Default: 100.
#   ALENS         the command to run, such as the path of .venv/bin/alens. Default: alens.
#   SCRIPT        this file, as seen from the directory where qsub ran. Default: pbs.sh.
#
# Write resources, queue and account as directives here, not as options of qsub: a worker that submits itself
# again repeats this file and the variables, nothing else.

#PBS -N alens-cache
#PBS -S /bin/bash
#PBS -l select=1:ncpus=4
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
[ -n "${CONFIG:-}" ] || refuse "CONFIG is missing: name a TOML file with -v CONFIG=..."
WORKERS=${WORKERS:-}
[[ $WORKERS =~ ^[1-9][0-9]*$ ]] || refuse "WORKERS is '$WORKERS': give the number of all workers with -v WORKERS=16, say"
WORKER=${PBS_ARRAY_INDEX:-${WORKER:-}}
[[ $WORKER =~ ^(0|[1-9][0-9]*)$ ]] || refuse "no worker is named: submit with qsub -J 0-$((WORKERS - 1)), or with -v WORKER=0, say"
[ "$WORKER" -lt "$WORKERS" ] || refuse "there is no worker $WORKER: the workers are 0 to $((WORKERS - 1))"

# The user's own words, split as the user's shell would split them: a value may hold spaces.
eval "options=(${OPTIONS:-})"
options+=(--worker "$WORKER/$WORKERS")
[ -z "${MAX_MINUTES:-}" ] || options+=(--max-minutes "$MAX_MINUTES")

# The last bits of sums depend on the number of threads: it is what was asked for, not what the node has.
export OMP_NUM_THREADS=${NCPUS:-1}
# Compute nodes seldom have network. Model and text were fetched before; nothing is downloaded here.
export HF_HUB_OFFLINE=1

code=0
"${ALENS:-alens}" cache --config "$CONFIG" "${options[@]}" || code=$?

# 75: stopped on request, what was finished is committed. Only the server may requeue a job, so the worker
# submits itself anew, alone. qsub takes the values from the environment: commas and quotes in them do no harm.
if [ "$code" -eq 75 ]; then
    RESTARTS=${RESTARTS:-0} MAX_RESTARTS=${MAX_RESTARTS:-100}
    if [ "$RESTARTS" -ge "$MAX_RESTARTS" ]; then
        say "worker $WORKER/$WORKERS stopped and was submitted again $RESTARTS times, no more: submit it again"
    else
        RESTARTS=$((RESTARTS + 1))
        say "worker $WORKER/$WORKERS stopped: submitted again, $RESTARTS of $MAX_RESTARTS"
        names=WORKER,WORKERS,CONFIG,SCRIPT,RESTARTS,MAX_RESTARTS
        for name in OPTIONS MAX_MINUTES ALENS; do
            [ -z "${!name:-}" ] || names+=",$name"
        done
        export WORKER WORKERS CONFIG SCRIPT RESTARTS MAX_RESTARTS
        qsub -v "$names" "$SCRIPT" || say "worker $WORKER/$WORKERS cannot be submitted: submit it again"
    fi
fi
exit "$code"
