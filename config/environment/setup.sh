#!/usr/bin/env bash
# Makes .venv: torch, the toolkit with its dependencies, Horovod, and the RO-Crate validator. Does nothing if that is done.
#
# HPC_LPM_PYTHON   the interpreter to use (python3.11 or newer; default: the first one found)
# HPC_LPM_CACHE    where the Horovod wheel is kept (default: ~/.cache/hpc-lpm)
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=$root/.venv
constraints=$here/constraints.txt
stamp=$venv/.hpc-lpm-setup

fail() {
    echo "setup: $*" >&2
    exit 2
}

fingerprint() {
    cat "$root/pyproject.toml" "$here"/*.txt "$here"/*.sh | sha256sum | cut -d ' ' -f 1
    echo "$root"
}

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ]; then
    exit 0
fi

find_python() {
    for candidate in "${HPC_LPM_PYTHON:-}" python3 python3.11 python3.12 python3.13; do
        if [ -n "$candidate" ] && command -v "$candidate" >/dev/null &&
            "$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer with venv was found: install it (Debian: python3 python3-venv python3-dev) or set HPC_LPM_PYTHON."
}

command -v c++ >/dev/null || fail "no C++ compiler was found: install one (Debian: g++)."

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    echo "setup: virtual environment in .venv with $("$python" --version)" >&2
    "$python" -m venv "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" --constraint "$constraints"; }

# torch first: whatever is installed after it finds it there and brings no second one.
echo "setup: torch" >&2
if [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null; then
    pip install torch
else
    torch_version=$(sed -n 's/^torch==//p' "$constraints")
    pip install "torch==$torch_version+cpu" 2>/dev/null || pip install torch
fi
echo "setup: dependencies" >&2
pip install setuptools wheel cloudpickle cmake ninja
pip install --editable "$root[dev]"
# A package without a build step of its own for this platform; its sdist is patched and built once.
wheel=$("$here/build_horovod.sh" "$venv/bin/python")
"$venv/bin/python" -m pip --disable-pip-version-check --quiet install --no-deps --force-reinstall "$wheel"

# What judges RO-Crates wants an older rich than the toolkit, so it lives in an environment of its own.
echo "setup: RO-Crate validator" >&2
validator=$venv/crate-validator
[ -x "$validator/bin/python" ] || "$venv/bin/python" -m venv "$validator"
"$validator/bin/python" -m pip --disable-pip-version-check --quiet install --requirement "$here/crate_validator.txt"

fingerprint >"$stamp"
echo "setup: done" >&2
