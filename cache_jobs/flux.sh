#!/usr/bin/env bash
# One job of a set is one worker of `alens cache`. What stands after the name of this script goes to alens:
#
#   flux submit --cc=0-15 --env=WORKERS=16 --cores-per-task=4 --gpus-per-task=1 --time-limit=4h --signal=USR1@120s \
#       --output='flux-{{id}}.out' flux.sh --config gpt2-bookcorpus.toml
#
# Or one job with a task a worker, for an allocation that you have. Without exit-timeout=none Flux kills the others half
# a minute after the first worker is done:
#
#   flux run --ntasks=16 --cores-per-task=4 -o exit-timeout=none -o cpu-affinity=per-task flux.sh --config ...
#
# Environment:
#   WORKERS       N of `--worker I/N`, for a set. One job of many tasks knows it by itself.
#   MAX_MINUTES   stop cleanly after so many minutes, and submit again. Default: stop on a signal only.
#   MAX_RESTARTS  submit again at most so often. Default: 100.
#   ALENS         the command to run, such as the path of .venv/bin/alens. Default: alens.
#
# Time limit, cores and GPUs are options of flux submit. A worker that submits itself again repeats them.

set -euo pipefail

say() {
    echo "flux.sh: $1" >&2
}

refuse() {
    say "$1"
    exit 2
}

tasks=${FLUX_JOB_SIZE:?run it with flux submit or flux run}
if [ "$tasks" -gt 1 ]; then
    worker=$FLUX_TASK_RANK workers=$tasks
else
    worker=${FLUX_JOB_CC:-} workers=${WORKERS:-}
    [ -n "$worker" ] || refuse "this is one job alone: submit a set with flux submit --cc=0-15, say"
    [[ $workers =~ ^[1-9][0-9]*$ ]] || refuse "WORKERS is '$workers': give the number of all workers with \
--env=WORKERS=16, say"
    [ "$worker" -lt "$workers" ] || refuse "there is no worker $worker: the workers are 0 to $((workers - 1))"
fi

options=(--worker "$worker/$workers")
[ -z "${MAX_MINUTES:-}" ] || options+=(--max-minutes "$MAX_MINUTES")

# The last bits of sums depend on the number of threads: it is the cores that Flux binds the task to.
OMP_NUM_THREADS=$(env -u OMP_NUM_THREADS nproc)
export OMP_NUM_THREADS
# Compute nodes seldom have network. Model and text were fetched before; nothing is downloaded here.
export HF_HUB_OFFLINE=1

# Flux signals this script and alens alike. With a trap the script waits for alens; TERM ends a job for good.
ended=
trap : USR1
trap 'ended=yes' TERM
code=0
"${ALENS:-alens}" cache "$@" "${options[@]}" || code=$?

# 75: stopped on request, what was finished is committed. 138: USR1 came while alens was still starting. Flux requeues
# nothing, so the job submits itself anew, as it was submitted first.
if [[ -z $ended && ($code == 75 || $code == 138) ]]; then
    restarts=${RESTARTS:-0} most=${MAX_RESTARTS:-100}
    if [ "$tasks" -gt 1 ]; then
        say "worker $worker/$workers stopped: submit again what is missing"
    elif [ "$restarts" -ge "$most" ]; then
        say "worker $worker/$workers stopped and was submitted again $restarts times, no more: submit it again"
    else
        say "worker $worker/$workers stopped: submitted again, $((restarts + 1)) of $most"
        count='import json, sys
job = json.load(sys.stdin)
job["attributes"]["system"].setdefault("environment", {})["RESTARTS"] = sys.argv[1]
json.dump(job, sys.stdout)'
        flux job info "$FLUX_JOB_ID" jobspec | flux python -c "$count" "$((restarts + 1))" | flux job submit ||
            say "worker $worker/$workers cannot be submitted: submit it again"
    fi
fi
exit "$code"
