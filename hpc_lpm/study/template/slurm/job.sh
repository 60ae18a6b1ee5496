# The script of every job sources this before Snakemake starts (`precommand` in config.v8+.yaml). It
# loads the modules that site.yaml names, and saves two things that would otherwise be lost:
#
# * The nodes of the job: Snakemake's executor removes most SLURM_ variables, after which mpirun would
#   start every rank on the first node. They are kept as HPC_LPM_SLURM_...
# * Signals: what Slurm sends before the time limit (sbatch --signal=B:USR2@...) only reaches this
#   shell, and a shell that waits for a command does not act on it. It is passed on to `hpc-lpm
#   campaign launch`, which leaves its process number in HPC_LPM_SIGNALLED.

if [ -n "${HPC_LPM_MODULES:-}" ]; then
    for start in "${LMOD_PKG:-/usr/share/lmod/lmod}/init/sh" "${MODULESHOME:-/usr/share/modules}/init/sh" \
        /etc/profile.d/lmod.sh /etc/profile.d/modules.sh; do
        command -v module >/dev/null 2>&1 && break
        [ ! -r "$start" ] || . "$start"
    done
    for module in $HPC_LPM_MODULES; do
        if ! module load "$module"; then
            echo "hpc-lpm: module $module, which slurm/site.yaml names, cannot be loaded on" \
                "$(uname -n): correct the name (module avail)." >&2
            exit 2
        fi
    done
    unset HPC_LPM_MODULES # once is enough
fi

if [ -n "${SLURM_JOB_ID:-}" ] && [ "${HPC_LPM_SLURM_JOB_ID:-}" != "$SLURM_JOB_ID" ]; then
    for name in $(env | sed -n 's/^\(HPC_LPM_SLURM_[A-Z_]*\)=.*/\1/p'); do
        unset "$name" # it belongs to the job that submitted this one
    done
    for name in $(env | sed -n 's/^\(SLURM_[A-Z_]*\)=.*/\1/p'); do
        eval "export HPC_LPM_$name=\"\$$name\""
    done
    # TMPDIR may name a folder that only the node has which submitted this.
    HPC_LPM_SIGNALLED=$(mktemp -d 2>/dev/null || TMPDIR=/tmp mktemp -d)
    export HPC_LPM_SIGNALLED

    # Run the script once more, as a child that these signals do not end, and wait for it.
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
        status=$? # the exit code of the script, or of a signal that came while waiting
        kill -0 "$script" 2>/dev/null || break
    done
    # The script may have ended just as a signal ended the wait: then its exit code is still kept.
    wait "$script" 2>/dev/null
    kept=$?
    [ "$kept" = 127 ] || status=$kept
    rm -rf "$HPC_LPM_SIGNALLED"
    exit "$status"
fi
