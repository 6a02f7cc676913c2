#!/bin/sh
# Fuzzes: `sh tests/fuzz/run.sh FOLDER SECONDS [TARGET...]` runs FOLDER/fuzz_TARGET from the kept corpus
# for so long, all at once, every one by default. What is new goes to FOLDER/found/TARGET, what breaks
# a property to FOLDER/broken-TARGET-*. Status 1: something broke. 77: no such program is there.
set -u
folder=${1:?folder} seconds=${2:?seconds}
shift 2
here=$(cd "$(dirname "$0")" && pwd)
[ $# -gt 0 ] || set -- safetensors config tokenizer chat_request reply

for target; do
  [ -x "$folder/fuzz_$target" ] && continue
  echo "fuzz: skipped: no $folder/fuzz_$target (make fuzz-build, which needs clang-19)"
  exit 77
done

for target; do
  found=$folder/found/$target
  mkdir -p "$found"
  case $target in tokenizer) longest=16384 ;; *) longest=4096 ;; esac
  "$folder/fuzz_$target" -max_total_time="$seconds" -max_len=$longest -timeout=10 \
    -rss_limit_mb=3000 -dict="$here/$target.dict" -print_final_stats=1 \
    -artifact_prefix="$folder/broken-$target-" "$found" "$here/corpus/$target" \
    >"$folder/$target.log" 2>&1 &
  eval "pid_$target=$!"
done

status=0
for target; do
  log=$folder/$target.log
  if eval "wait \$pid_$target"; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    reached=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -n 1)
    echo "$target: clean, $runs runs in $seconds s, $reached"
  else
    echo "$target: BROKEN, see $log:"
    grep -m 3 -E 'does not hold|ERROR|runtime error|SUMMARY' "$log"
    status=1
  fi
done
exit $status
