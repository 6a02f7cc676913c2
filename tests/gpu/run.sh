#!/bin/sh
# Everything that shows the GPU side to work, with the binaries of FOLDER (seacliff, gpu_test):
# `sh tests/gpu/run.sh FOLDER`. Needs no compiler; the parts in Python are left out where python3
# lacks pytest, numpy or safetensors. Fails where there is no device. What the parts print is left in
# $LOGS, else in FOLDER/gpu-test.
set -u
cd "$(dirname "$0")/../.."
folder=$(cd "${1:?usage: sh tests/gpu/run.sh FOLDER}" && pwd) || exit 1
logs=${LOGS:-$folder/gpu-test}
mkdir -p "$logs"
SEACLIFF_SOURCE_DIR=$PWD SEACLIFF_BINARY=$folder/seacliff PYTHONDONTWRITEBYTECODE=1
export SEACLIFF_SOURCE_DIR SEACLIFF_BINARY PYTHONDONTWRITEBYTECODE

if ! "$folder/seacliff" check embed --device cuda --row cuda >"$logs/device.log" 2>&1; then
  echo "gpu-test: no device, or it does not work:" "$(tail -1 "$logs/device.log")" >&2
  exit 1
fi

passed=0 failed=0 skipped=0
# part NAME COMMAND...: one line of how it went; what it printed follows if it failed.
part() {
  name=$1 log=$logs/$(echo "$1" | tr -c 'a-z0-9_\n' '-').log begin=$(date +%s)
  shift
  "$@" >"$log" 2>&1 </dev/null
  status=$? seconds=$(($(date +%s) - begin))
  if [ $status -eq 0 ]; then
    passed=$((passed + 1))
    echo "passed  $name (${seconds} s)"
    grep -E 'of the whole|logits differ|the texts part|are the CPU|perplexity over' "$log" | sed 's/^/        /'
    return
  fi
  failed=$((failed + 1))
  echo "FAILED  $name (status $status, ${seconds} s): $log"
  tail -n 60 "$log" | sed 's/^/        /'
}

part "gpu_test" "$folder/gpu_test" --gtest_brief=1
part "check" "$folder/seacliff" check --device cuda
part "check as a small card" "$folder/seacliff" check --device cuda --smem-limit 99K --max-sms 48
# The driver compiles the PTX instead of taking the machine code that lies beside it.
part "check from the ptx" env CUDA_FORCE_PTX_JIT=1 "$folder/seacliff" check --device cuda
for python in .venv/bin/python python3 none; do
  ! "$python" -c 'import pytest, numpy, safetensors' 2>/dev/null || break
done
if [ "$python" != none ]; then
  part "python" "$python" -m pytest -q -s -p no:cacheprovider -c tests/pytest.ini \
    --rootdir tests/cli tests/cli/test_perplexity.py -k gpu
else
  skipped=1
  echo "skipped python: there is no python3 with pytest, numpy and safetensors"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ]
