#!/usr/bin/env bash
# Makes .venv: the toolkit's dependencies, torch, the toolkit, Horovod, and the RO-Crate validator.
# Does nothing if that is done. Says one line a step; what pip says goes to .venv/setup.log. Whatever
# a package index offers, only files whose hashes are in lock/ are installed.
#
#   setup.sh [--no-retry | --require-horovod]
#
# Horovod has to be compiled. Where that cannot be done, set-up says so and goes on, and campaigns run
# with the other strategies. The next set-up tries again, unless it is told not to (--no-retry); with
# --require-horovod, which the tests use, it fails.
#
# HPC_LPM_PYTHON   the interpreter to use (python3.11 or newer; default: the first one found)
# HPC_LPM_CACHE    where the Horovod wheel is kept (default: ~/.cache/hpc-lpm)
# HPC_LPM_TORCH    a requirements file that names the torch to install instead of the locked one, for
#                  another release, CUDA or accelerator; later set-ups of this .venv go by it, too
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
venv=$root/.venv
lock=$here/lock
stamp=$venv/.hpc-lpm-setup
log=$venv/setup.log
# Why Horovod is missing and how to get it, a line each; campaigns report both.
missing=$venv/horovod-missing.txt
validator=$venv/crate-validator
own_torch=$venv/own-torch.txt
option=${1:-}

fail() {
    echo "setup: $*" >&2
    exit 2
}

fingerprint() {
    cat "$root/pyproject.toml" "$lock"/*.txt "$here"/*.sh | sha256sum | cut -d ' ' -f 1
    echo "$root"
}

finished() {
    [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] &&
        { [ -z "${HPC_LPM_TORCH:-}" ] || [ "$(cat "$HPC_LPM_TORCH")" = "$(cat "$own_torch" 2>&1)" ]; }
}

# What a shell brings along must not decide what is installed where: of pip's variables those stay that
# say where packages come from. make's would reach the make that builds Horovod.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV MAKEFLAGS MFLAGS MAKELEVEL GNUMAKEFLAGS
for variable in $(compgen -e PIP_ || true); do
    case $variable in
    PIP_*INDEX* | PIP_FIND_LINKS | PIP_TRUSTED_HOST | PIP_*CERT | PIP_PROXY | PIP_*TIMEOUT) ;;
    PIP_RETRIES | PIP_*CACHE_DIR | PIP_CONFIG_FILE | PIP_KEYRING_PROVIDER | PIP_USE_*) ;;
    *) unset "$variable" ;;
    esac
done
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_PROGRESS_BAR=off

# ---- one line a step ----

steps=6
number=0
in_step=

begin() { # TITLE
    number=$((number + 1))
    in_step=$SECONDS
    printf '[%d/%d] %s... ' "$number" "$steps" "$1" >&2
    { printf '\n==== %s: %s\n' "$(date)" "$1" >>"$log"; } 2>/dev/null || true # of a full disk pip tells
}

finish() { # done | failed | left out
    echo "$1 in $((SECONDS - in_step)) s" >&2
    in_step=
}

# In a shell of its own, so that what traps say is not logged; no child keeps the lock.
logged() { # COMMAND...
    ("$@") >>"$log" 2>&1 </dev/null 8<&-
}

step() { # TITLE COMMAND...
    local title=$1
    shift
    begin "$title"
    if logged "$@"; then
        finish "done"
        return
    fi
    finish failed
    echo "setup: the end of $log:" >&2
    tail -n 20 "$log" | sed 's/^/    /' >&2
    local free
    free=$(df -Pm "$venv" | awk 'NR == 2 { print $4 }')
    [ "${free:-1000}" -ge 200 ] ||
        fail "only $free MB are free in $venv: make room, about 3 GB, and run make setup again."
    fail "${title%% (*} failed, see above: mend it and run make setup again."
}

interrupted() {
    [ -z "$in_step" ] || echo >&2
    echo "setup: interrupted; make setup goes on from here." >&2
    exit 130
}
trap interrupted INT TERM HUP

# ---- the steps ----

find_python() {
    local candidate candidates=(python3 python3.11 python3.12 python3.13)
    [ -z "${HPC_LPM_PYTHON:-}" ] || candidates=("$HPC_LPM_PYTHON")
    for candidate in "${candidates[@]}"; do
        if command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

# Tell if .venv is whole and was made in this very folder: its programs hold its path.
usable() { [[ $("$venv/bin/pip" --version 2>/dev/null) == *" from $venv/"* ]]; }

pip() { "$venv/bin/python" -m pip "$@"; }

make_environment() { usable || "$python" -m venv "$venv"; }

# The lock names all that a package needs, which pip check confirms at the end. What has no wheel is
# built with the locked tools, not with newer ones that pip would fetch for each.
install_locked() { # NAME: a file of the lock
    pip install --require-hashes --no-deps --no-build-isolation --requirement "$lock/$1.txt"
}

install_torch() {
    [ -z "${HPC_LPM_TORCH:-}" ] || cp "$HPC_LPM_TORCH" "$own_torch" || return
    if [ -e "$own_torch" ]; then
        pip install --requirement "$own_torch"
    elif [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then
        install_locked torch-cuda
    else
        install_locked torch-cpu || install_locked torch-cuda
    fi
}

# DeepSpeed notes the torch that it is built beside.
install_torch_and_toolkit() {
    install_torch && install_locked sources &&
        pip install --no-deps --no-build-isolation --editable "$root"
}

# Open MPI's library must be there first, as it is in training.
import_horovod() {
    "$venv/bin/python" -c 'import mpi4py; mpi4py.rc.initialize = False
import mpi4py.MPI, horovod.torch'
}

# Prints nothing if it succeeds, else why it cannot be done and what to do, a line each.
install_horovod() {
    local answer kept
    # A wheel that was kept may have been cut off, or built on a machine whose libraries are newer.
    for kept in '' --anew; do
        if ! answer=$("$here/build_horovod.sh" $kept "$venv/bin/python"); then
            printf '%s\n' "${answer:-its build script failed
read .venv/setup.log and mend what it says}"
            return 1
        fi
        if pip install --no-deps --force-reinstall "$answer" >&2 && import_horovod >&2; then
            return
        fi
    done
    printf '%s\n' "it was built, but cannot be imported" "read .venv/setup.log and mend what it says"
    return 1
}

try_horovod() {
    begin "Horovod (from the cache; the first time on a machine it is built, about 5 minutes)"
    if (install_horovod) >"$missing.new" 2>>"$log" </dev/null 8<&-; then
        rm -f "$missing" "$missing.new"
        finish "done"
        return
    fi
    mv "$missing.new" "$missing"
    finish "left out"
    local reason remedy
    { read -r reason && read -r remedy; } <"$missing"
    remedy="$remedy and run make setup again (log: $log)"
    [ "$option" != --require-horovod ] || fail "the tests need Horovod, but $reason: $remedy."
    printf 'setup: Horovod is left out because %s: %s; campaigns run with the other strategies.\n' \
        "$reason" "$remedy" >&2
}

install_validator() {
    # It wants an older rich than the toolkit, so it lives in an environment of its own.
    "$validator/bin/python" -m pip --version ||
        "$venv/bin/python" -m venv --clear "$validator" || return
    "$validator/bin/python" -m pip install --require-hashes --no-deps \
        --requirement "$lock/crate-validator.txt" && "$validator/bin/python" -m pip check
}

check() {
    pip check && "$venv/bin/python" -c 'import deepspeed, hpc_lpm, mpi4py, snakemake, torch' &&
        "$venv/bin/snakemake" --version && "$venv/bin/hpc-lpm" --help
}

# ---- what is to be done ----

case $option in
'' | --no-retry | --require-horovod) ;;
*) fail "unknown option $option: accepted are --no-retry and --require-horovod." ;;
esac
[ -z "${HPC_LPM_TORCH:-}" ] || [ -f "$HPC_LPM_TORCH" ] ||
    fail "HPC_LPM_TORCH names $HPC_LPM_TORCH, which is no file: name a requirements file with the torch to install, or unset it."

if finished && { [ ! -e "$missing" ] || [ "$option" = --no-retry ]; }; then
    exit 0
fi
# Two set-ups at once: the second waits, and then finds it done. Some file systems have no locks.
if command -v flock >/dev/null; then
    exec 8<"$here/setup.sh"
    flock -n -E 75 8 2>/dev/null || [ $? != 75 ] || {
        echo "setup: waiting for another set-up of $root" >&2
        flock 8
    }
fi

if ! finished; then
    made="virtual environment"
    if usable; then
        made+=" (it is there)"
    else
        if [ -L "$venv" ]; then
            fail ".venv is a link to an environment that was made elsewhere ($(readlink "$venv")): remove the link and run make setup again."
        elif [ -e "$venv" ]; then
            made+=", anew (the one in .venv was made in another folder, or not to its end)"
            rm -rf "$venv" || fail "$venv cannot be removed: remove it and run make setup again."
        fi
        python=$(find_python) ||
            fail "no Python 3.11 or newer with venv was found${HPC_LPM_PYTHON:+ in HPC_LPM_PYTHON ($HPC_LPM_PYTHON)}: install it (Debian: python3 python3-venv) or set HPC_LPM_PYTHON to one."
        mkdir -p "$venv" || fail "$venv cannot be made: start from a checkout that you may write."
    fi
    : >"$log"
    step "$made" make_environment
    step "dependencies (about 2 minutes)" install_locked packages
    step "PyTorch and the toolkit (about a minute)" install_torch_and_toolkit
    try_horovod
    step "RO-Crate validator" install_validator
    step "check" check
    fingerprint >"$stamp"
elif [ -e "$missing" ]; then
    steps=1
    : >"$log"
    try_horovod
fi
[ -e "$missing" ] || [ "$number" = 0 ] || echo "setup: done" >&2
