# Sourced by the script of every job before Snakemake starts (`precommand` in config.v8+.yaml). Two things
# would be lost without it:
#
# * which nodes the job has: Snakemake's executor takes most SLURM_ variables away, and mpirun would start
#   every rank on the first node. They are kept as HPC_LPM_SLURM_...
# * signals: those sent to the job's script before its time limit (sbatch --signal=B:USR2@...) reach this
#   shell alone, and a shell that waits for a command does nothing about them. From here they reach
#   `hpc-lpm campaign launch`, which leaves its process number in HPC_LPM_SIGNALLED.

if [ -n "${SLURM_JOB_ID:-}" ] && [ "${HPC_LPM_SLURM_JOB_ID:-}" != "$SLURM_JOB_ID" ]; then
    for name in $(env | sed -n 's/^\(HPC_LPM_SLURM_[A-Z_]*\)=.*/\1/p'); do
        unset "$name" # of the job that submitted this one
    done
    for name in $(env | sed -n 's/^\(SLURM_[A-Z_]*\)=.*/\1/p'); do
        eval "export HPC_LPM_$name=\"\$$name\""
    done
    HPC_LPM_SIGNALLED=$(mktemp -d)
    export HPC_LPM_SIGNALLED

    # The script runs once more, as a child that these signals do not end, and this shell waits for it.
    trap '' TERM USR2
    /bin/sh "$0" &
    script=$!
    pass_on() {
        for process in "$HPC_LPM_SIGNALLED"/*; do
            kill -s "$1" "${process##*/}" 2>/dev/null || true
        done
    }
    trap 'pass_on TERM' TERM
    trap 'pass_on USR2' USR2
    while :; do
        wait "$script"
        status=$? # of the script, or of the signal that came while waiting
        kill -0 "$script" 2>/dev/null || break
    done
    rm -rf "$HPC_LPM_SIGNALLED"
    exit "$status"
fi
