#!/bin/sh
# compute-sanitizer over the checks of every op with a CUDA row and over two short generations:
# `sh tests/gpu/sanitize.sh FOLDER [TOOL...]`, with FOLDER's seacliff; the tools are memcheck,
# racecheck and initcheck unless named. One line for each tool and op, with the number of errors;
# what a tool says about one is left in $LOGS, else in FOLDER/sanitize. SECONDS_EACH (90) bounds
# each, JOBS (one for two processors) is how many run at once, ONLY="tiny tiny-a OP..." leaves out
# the rest.
set -u
cd "$(dirname "$0")/../.."
folder=$(cd "${1:?usage: sh tests/gpu/sanitize.sh FOLDER [TOOL...]}" && pwd) || exit 1
shift
tools=${*:-memcheck racecheck initcheck}
logs=${LOGS:-$folder/sanitize}
binary=$folder/seacliff seconds=${SECONDS_EACH:-90} jobs=${JOBS:-$((($(nproc) + 1) / 2))}
mkdir -p "$logs"
PATH=$PATH:/usr/local/cuda/bin
command -v compute-sanitizer >/dev/null || { echo "sanitize: there is no compute-sanitizer" >&2; exit 1; }

ids=$logs/ids
seq 300 7 580 >"$ids" # 41 tokens, of which 5 are decoded
ops=$("$binary" show kernels --device cpu | awk '$1 ~ /^[a-z_]+$/ && $2 == "cuda" { print $1 }')
[ -n "$ops" ] || { echo "sanitize: $binary lists no CUDA row" >&2; exit 1; }

# one TOOL WHAT: the line, and the log where it is not clean.
cat >"$logs/one.sh" <<'ONE'
tool=$1 what=$2 log=$logs/$1-$2.log
case $what in
  tiny-a) set -- logits tests/data/golden/tiny-a --ids-file "$ids" --prefill 36 --out "$logs/logits-$tool" --device cuda ;;
  tiny) set -- generate models/tiny --prompt "Once upon a time" -n 5 --temp 0 --device cuda \
    --kv-cache-memory 64M ;;
  *) set -- check "$what" --device cuda ;;
esac
begin=$(date +%s)
timeout "$seconds" compute-sanitizer --tool "$tool" --error-exitcode 99 "$binary" "$@" >"$log" 2>&1
status=$? took=$(($(date +%s) - begin))
errors=$(sed -n 's/.*ERROR SUMMARY: \([0-9]*\) error.*/\1/p; s/.*RACECHECK SUMMARY: \([0-9]*\) hazard.*/\1/p' "$log" | tail -1)
if [ $status -eq 124 ]; then
  echo "$tool $what: not finished after $seconds s"
elif [ $status -eq 0 ] && [ "$errors" = 0 ]; then
  rm -f "$log"
  echo "$tool $what: 0 errors ($took s)"
else
  echo "$tool $what: ${errors:-unknown} errors, status $status ($took s): $log"
fi
ONE
export logs ids seconds binary
for tool in $tools; do
  for what in ${ONLY:-tiny tiny-a $ops}; do echo "$tool $what"; done
done | xargs -P "$jobs" -L 1 sh "$logs/one.sh" | tee "$logs/summary.txt"
total=$(grep -c . "$logs/summary.txt")
clean=$(grep -c ': 0 errors (' "$logs/summary.txt")
echo "$clean of $total clean"
[ "$clean" -eq "$total" ]
