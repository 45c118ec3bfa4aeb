# Sourced by the batch scripts beside it, from the repository's root.
# shellcheck shell=bash

# Print one line and end the job.
stop() {
    echo "$0: $1" >&2
    exit 2
}

# supervise COMMAND ... -- ARGUMENTS OF THE LAUNCHER
#
# Run a step with these arguments, and end the job with its exit code. Signals that only this shell
# gets are passed on as USR1: srun forwards that to every task, whereas TERM makes it kill them.
# A step that made room for a signal, and had advanced, is worth another start of the job.
supervise() {
    local step=() code=0 child
    while [ "$1" != -- ]; do
        step+=("$1")
        shift
    done
    shift
    # Since 22.05 srun does not take this option from sbatch.
    if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
        export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"
    fi
    "${step[@]}" "$@" &
    child=$!
    trap 'kill -USR1 "$child"' USR1 USR2 TERM
    # A trapped signal ends a wait, not the step.
    while kill -0 "$child" 2>/dev/null; do
        wait "$child" || true
    done
    wait "$child" || code=$?
    if [ "$code" -ne 0 ] && may_start_again "$code" "$@"; then
        # The last command: it ends this shell.
        scontrol requeue "$SLURM_JOB_ID"
    fi
    exit "$code"
}

# A cancelled job still has time to get here, and would be started again like any other.
may_start_again() {
    [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ] &&
        python launchers/slurm/requeue.py "$@"
}
