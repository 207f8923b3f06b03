#!/usr/bin/env bash
# One array task is one worker of `alens cache`. What stands after the name of this script goes to alens:
#
#   sbatch --array=0-15 --export=ALL,WORKERS=16 slurm.sh --config gpt2-bookcorpus.toml
#
# Environment:
#   WORKERS       N of `--worker I/N`. Default: the size of the array, right when the whole array is submitted.
#   MAX_MINUTES   stop cleanly after so many minutes, and requeue. Default: stop on a signal only.
#   MAX_RESTARTS  requeue at most so often. Default: 100.
#   ALENS         the command to run, such as the path of .venv/bin/alens. Default: alens.
#
# Time limit, memory, GPU and account are options of sbatch. They beat the lines below.

#SBATCH --job-name=alens-cache
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --requeue
# A requeued task goes on in the same log.
#SBATCH --open-mode=append
# Two minutes before the time limit, and to alens alone: it stops between two batches.
#SBATCH --signal=USR1@120

set -euo pipefail

say() {
    echo "slurm.sh: $1" >&2
}

refuse() {
    say "$1"
    exit 2
}

task=${SLURM_ARRAY_TASK_ID:-}
[ -n "$task" ] || refuse "this is not an array task: submit it with sbatch --array=0-15, say"
workers=${WORKERS:-$SLURM_ARRAY_TASK_COUNT}
[[ $workers =~ ^[1-9][0-9]*$ ]] || refuse "WORKERS is '$workers': it must be a whole number from 1 on"
# The last index of the array, not this task's: with a wrong WORKERS all tasks refuse, not some.
[ "$SLURM_ARRAY_TASK_MAX" -lt "$workers" ] || refuse "the array goes up to $SLURM_ARRAY_TASK_MAX, but the workers are \
0 to $((workers - 1)): give the number of all workers with --export=ALL,WORKERS=N"

options=(--worker "$task/$workers")
[ -z "${MAX_MINUTES:-}" ] || options+=(--max-minutes "$MAX_MINUTES")

# The last bits of sums depend on the number of threads: it is what was asked for, not what the node has.
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
# Compute nodes seldom have network. Model and text were fetched before; nothing is downloaded here.
export HF_HUB_OFFLINE=1

# A step, because preemption and time limit signal steps. Since Slurm 22.05 it must be told its CPUs again.
code=0
srun --ntasks=1 --cpus-per-task="$OMP_NUM_THREADS" "${ALENS:-alens}" cache "$@" "${options[@]}" || code=$?

# 75: stopped on request, what was finished is committed. 138 and 143: the same signals, USR1 and TERM, came while
# alens was still starting. A script that ends within the grace time of a preemption counts as completed, and Slurm
# does not requeue it. So the script does.
case $code in 75 | 138 | 143)
    restarts=${SLURM_RESTART_COUNT:-0} most=${MAX_RESTARTS:-100}
    if [ "$restarts" -ge "$most" ]; then
        say "worker $task/$workers stopped and was requeued $restarts times, no more: submit it again"
    else
        say "worker $task/$workers stopped: requeue $((restarts + 1)) of $most"
        # Not SLURM_JOB_ID: the last task has the number of the array, and would requeue every task with it.
        scontrol requeue "${SLURM_ARRAY_JOB_ID}_$task" || say "worker $task/$workers cannot be requeued: submit it again"
    fi
    ;;
esac
exit "$code"
