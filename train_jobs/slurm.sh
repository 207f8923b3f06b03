#!/usr/bin/env bash
# A job is one `alens fit STORE LENSES`, with one process a task. All arguments go to alens:
#
#   sbatch --gpus-per-node=1 slurm.sh CACHE LENSES --config gpt2-all.toml
#   sbatch --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 slurm.sh CACHE LENSES --config gpt2-all.toml --zero 1
#
# In an array, each task is a fit of its own: task 7 fits layer 7 into LENSES/layer-07.
#
#   sbatch --array=0-11 --gpus-per-node=1 slurm.sh CACHE LENSES --config gpt2-layer.toml
#
# Environment:
#   LAYERS        what the tasks of an array fit, a word a task, such as "0-3 4-7 8-11": task 1 fits layers 4 to 7
#                 into LENSES/layers-4-7. Default: the index of the task is the layer.
#   MAX_MINUTES   save and stop after so many minutes, and requeue. Default: stop on a signal only.
#   MAX_RESTARTS  requeue at most so often. Default: 100.
#   MASTER_ADDR   where the processes find each other. Default: the first node of the job; 127.0.0.1 on one node.
#   MASTER_PORT   Default: a port that follows from the number of the job.
#   ALENS         the command to run, such as the path of .venv/bin/alens. Default: alens.
#
# Nodes, tasks, time limit, memory, GPUs and account are options of sbatch. They beat the lines below.

#SBATCH --job-name=alens-fit
#SBATCH --nodes=1
# One task a GPU; without GPUs, one a node.
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --requeue
# A requeued job goes on in the same log.
#SBATCH --open-mode=append
# Two minutes before the time limit, and to alens alone: it saves after the step it is in.
#SBATCH --signal=USR1@120

set -euo pipefail

say() {
    echo "slurm.sh: $1" >&2
}

refuse() {
    say "$1"
    exit 2
}

usage="give CACHE and LENSES first, then options: sbatch slurm.sh CACHE LENSES --config FILE.toml"
[ $# -ge 2 ] || refuse "$usage"
store=$1 lenses=$2
shift 2
[[ $store != -* && $lenses != -* ]] || refuse "$usage"

options=()
job=${SLURM_JOB_ID:?run it with sbatch}
task=${SLURM_ARRAY_TASK_ID:-}
if [ -n "$task" ]; then
    # Not SLURM_JOB_ID: the last task has the number of the array, and would requeue every task with it.
    job=${SLURM_ARRAY_JOB_ID}_$task
    layers=$task
    if [ -n "${LAYERS:-}" ]; then
        read -ra groups <<< "$LAYERS"
        # The last index of the array, not this task's: with wrong LAYERS all tasks refuse, not some.
        [ "$SLURM_ARRAY_TASK_MAX" -lt "${#groups[@]}" ] || refuse "the array goes up to $SLURM_ARRAY_TASK_MAX, \
but LAYERS has ${#groups[@]} words, for tasks 0 to $((${#groups[@]} - 1))"
        layers=${groups[task]}
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

if [ -z "${MASTER_ADDR:-}" ] && [ "${SLURM_JOB_NUM_NODES:-}" = 1 ]; then
    # All processes are on this node: no other reaches them there.
    MASTER_ADDR=127.0.0.1
elif [ -z "${MASTER_ADDR:-}" ]; then
    # The first node of the list has rank 0.
    MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
    MASTER_ADDR=${MASTER_ADDR%%$'\n'*}
fi
# Below the ports that systems give away by themselves; two jobs on one node seldom meet.
export MASTER_ADDR MASTER_PORT=${MASTER_PORT:-$((10000 + SLURM_JOB_ID % 20000))}
# The last bits of sums depend on the number of threads: it is what was asked for, not what the node has.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# Compute nodes seldom have network. A fit needs none.
export HF_HUB_OFFLINE=1

# What alens reads, for each process; one alone needs no meeting place. A process that sees one GPU only
# (--gpus-per-task, --gpu-bind, --tres-per-task) sees it as the first.
# shellcheck disable=SC2016
process='if [ "$SLURM_NTASKS" -gt 1 ]; then
    export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
    [[ -z ${CUDA_VISIBLE_DEVICES:-} || $CUDA_VISIBLE_DEVICES == *,* ]] || LOCAL_RANK=0
else
    unset MASTER_ADDR MASTER_PORT
fi
exec "$@"'

# alens puts it when it stopped on request and the state is saved. One of an earlier run says nothing of this one.
marker=$lenses/stopped.json
rm -f -- "$marker"

# A step, because preemption and time limit signal steps. Since Slurm 22.05 it must be told its CPUs again.
# When a process fails, the others get a minute to end by themselves. Killed at once (--kill-on-bad-exit), they would
# end as if they had been told to stop.
code=0
srun --kill-on-bad-exit=0 --wait=60 --cpus-per-task="$OMP_NUM_THREADS" \
    bash -c "$process" alens-fit "${ALENS:-alens}" fit "$store" "$lenses" "$@" "${options[@]}" || code=$?

# The exit code is one for all processes and cannot tell a stop from a crash: the marker does. 138 and 143: USR1 or TERM
# came while alens was still starting. A script that ends within the grace time of a preemption counts as completed,
# and Slurm does not requeue it. So the script does.
if [[ -e $marker || $code == 138 || $code == 143 ]]; then
    restarts=${SLURM_RESTART_COUNT:-0} most=${MAX_RESTARTS:-100}
    if [ "$restarts" -ge "$most" ]; then
        say "the fit of $lenses stopped and was requeued $restarts times, no more: submit it again"
    else
        say "the fit of $lenses stopped: requeue $((restarts + 1)) of $most"
        scontrol requeue "$job" || say "the fit of $lenses cannot be requeued: submit it again"
    fi
fi
exit "$code"
