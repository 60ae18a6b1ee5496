#!/usr/bin/env bash
# Stands in for Python and pip while set-up is tested: does nothing but what set-up looks at.
#
# FAKE_LOG     file that gets a line for every call of pip, and what a build was given
# FAKE_FAILS   a pattern: calls of pip that match it fail
# FAKE_WAITS   a pattern: calls of pip that match it wait until the file FAKE_LOG.go is there
# FAKE_BROKEN  a file that says how often Horovod's import still fails
set -euo pipefail

make_environment() {
    local folder=$1 program
    mkdir -p "$folder/bin" "$folder/lib/python3.11/site-packages" "$folder/include"
    touch "$folder/pyvenv.cfg" "$folder/lib/libmpi.so"
    cp "$0" "$folder/bin/python"
    # As pip does, programs name the folder that they were made for.
    printf '#!/usr/bin/env bash\n[ -e "%s" ] && echo "pip 1 from %s/lib/pip (python 3.11)"\n' \
        "$folder/bin/python" "$folder" >"$folder/bin/pip"
    for program in snakemake hpc-lpm; do
        printf '#!/usr/bin/env bash\nprintf "%%s|" "$@" >>"$FAKE_LOG.%s"\n' "$program" >"$folder/bin/$program"
    done
    chmod +x "$folder"/bin/*
}

# The two variables are patterns on purpose.
# shellcheck disable=SC2053
pip() {
    # As Python does; bash alone goes on if the `sleep` that it waits for has ended just before.
    trap 'trap - INT; kill -INT $$' INT
    echo "pip $*" >>"$FAKE_LOG"
    while [[ -n ${FAKE_WAITS:-} && "$*" == $FAKE_WAITS && ! -e $FAKE_LOG.go ]]; do sleep 0.05; done
    if [[ -n ${FAKE_FAILS:-} && "$*" == $FAKE_FAILS ]]; then
        echo "ERROR: the index does not answer"
        return 1
    fi
    case $1 in
    download)
        mkdir -p horovod-0.28.1/horovod/torch
        printf '%s\n' 'project(horovod CXX)' 'set(CMAKE_CXX_STANDARD 14)' >horovod-0.28.1/CMakeLists.txt
        echo 'set(CMAKE_CXX_STANDARD 14)' >horovod-0.28.1/horovod/torch/CMakeLists.txt
        tar czf horovod-0.28.1.tar.gz horovod-0.28.1
        ;;
    wheel)
        {
            echo "built by $0 in $PWD with $MAKEFLAGS and $HOROVOD_CMAKE, TMPDIR $TMPDIR"
            cat CMakeLists.txt horovod/torch/CMakeLists.txt
        } >>"$FAKE_LOG"
        while [ "$1" != --wheel-dir ]; do shift; done
        mkdir "$2"
        echo wheel >"$2/horovod-0.28.1-cp311.whl"
        ;;
    install) env | grep -E '^(PIP_|PYTHONPATH|MAKEFLAGS)' | sort >"$FAKE_LOG.environment" || true ;;
    esac
}

case $1 in
-) echo torch1-openmpi1-py311 ;;
--version) echo "Python 3.11.0" ;;
-c)
    case $2 in
    *cmake*) echo /cmake/bin ;;
    *horovod.torch*)
        if [ -s "${FAKE_BROKEN:-}" ] && [ "$(cat "$FAKE_BROKEN")" -gt 0 ]; then
            echo $(($(cat "$FAKE_BROKEN") - 1)) >"$FAKE_BROKEN"
            echo "ImportError: file too short"
            exit 1
        fi
        ;;
    esac
    ;;
-m)
    case $2 in
    venv) make_environment "${!#}" ;;
    pip) pip "${@:3}" ;;
    esac
    ;;
esac
