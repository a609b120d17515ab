#!/usr/bin/env bash
# Writes requirements/*.txt from requirements/*.in and the dependencies of both pyproject.toml.
# Arguments go to uv, for instance --upgrade or --upgrade-package grpcio.
set -euo pipefail
cd "$(dirname "$0")/.."

pin() {
    uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
        --no-header --no-emit-index-url --no-emit-package roomtape "$@"
}

service=(pyproject.toml clients/python/pyproject.toml requirements/service.in)
pin "$@" "${service[@]}" -o requirements/service.txt
pin "$@" "${service[@]}" requirements/dev.in -c requirements/service.txt -o requirements/dev.txt
pin "$@" requirements/proto.in -o requirements/proto.txt
pin "$@" requirements/oldest.in -o requirements/oldest.txt
