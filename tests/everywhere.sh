#!/usr/bin/env bash
# The numeric tests as slower processors would run them: the instruction sets of torch, oneDNN, MKL
# and OpenBLAS held down, one and two threads, shuffled order. The numbers differ from one setting
# to the next in their last digits; no test may depend on them.
#
#   tests/everywhere.sh         the two lowest settings, some five minutes on two cores
#   tests/everywhere.sh all     every setting, over all fast tests
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
numeric="tests/measure tests/theory tests/policies/test_exact.py tests/policies/test_hf.py
  tests/test_updates.py tests/test_train.py tests/test_losses.py tests/test_loop.py
  tests/lab/test_bulk.py tests/forecast/test_powers.py tests/forecast/test_dynamics.py"

with() {
  printf '\n== %s (%d s)\n' "$*" "$SECONDS"
  # shellcheck disable=SC2086
  env "$@" "$python" -m pytest -q -n 2 -m "not slow" $order $tests
}

torch=ATEN_CPU_CAPABILITY dnn=ONEDNN_MAX_CPU_ISA blas=OPENBLAS_CORETYPE mkl=MKL_ENABLE_INSTRUCTIONS
lowest="$torch=default $dnn=SSE41 $blas=Nehalem $mkl=SSE4_2"
middle="$torch=avx2 $dnn=AVX2 $blas=Haswell $mkl=AVX2"
if [ "${1:-}" = all ]; then
  tests='' order='-p no:randomly'
  with OMP_NUM_THREADS=2
  for setting in $torch=default $torch=avx2 $dnn=SSE41 $dnn=AVX2 $blas=Nehalem $blas=Haswell \
    $mkl=SSE4_2 $mkl=AVX2; do
    with OMP_NUM_THREADS=1 "$setting"
  done
else
  tests=$numeric
fi
order='-p no:randomly'
# shellcheck disable=SC2086
with OMP_NUM_THREADS=1 $lowest
order='-p randomly'
# shellcheck disable=SC2086
with OMP_NUM_THREADS=2 $middle
