#!/bin/sh
# Measures serving on this machine and appends JSON lines for docs/perf/serving.md.
#
#   sh bench/serving.sh [OPTION VALUE]... [SECTION]...
#
# Sections, in this order; all of them if none is named:
#   serve    a server, and `bench serve` at one concurrency after another
#   prefill  the same server: prompts that fill its context, one token out
#   direct   the same load without HTTP: `bench throughput --max-concurrency`
#   long     a server with a long context: decoding at 1,024 tokens and at nearly all of it
#   steps    the bytes of a decode step, and what reading them takes (needs a GPU)
#
# Options: see below. On two GPUs:
#   sh bench/serving.sh --binary build/gpu-pack/seacliff --config flash.json --tokenizer tokenizer.json \
#       --tp 2 --kernels portable --out results.jsonl
# A short version: --prompts 0 (as many as run at once) --output 256.
set -eu

binary=build/cpu/seacliff  # the program
model=                     # the model's folder, or
config=                    # a config.json and
tokenizer=                 # a tokenizer.json, of which a folder is made
load_format=dummy          # auto: with the folder's weights
tp=1                       # --tensor-parallel-size
echo=                      # yes: one rank of those on one GPU, --echo-ranks
kernels=                   # --kernels
label=                     # in the result lines; default the kernels, else "automatic"
concurrency=1,4,8,16,32
prompts=32                 # of each run; 0: as many as run at once
input=1024                 # tokens of a prompt
output=1024                # and of a reply
context=8192               # --max-model-len of the server
batched=2048               # --max-num-batched-tokens
long=131072                # context of the section `long`
out=serving.jsonl          # where result lines go

sections=
while [ $# -gt 0 ]; do
  case $1 in
    --binary | --model | --config | --tokenizer | --load-format | --tp | --echo | --kernels | --label | \
    --concurrency | --prompts | --input | --output | --context | --batched | --long | --out)
      [ $# -gt 1 ] || { echo "$1: needs a value" >&2; exit 2; }
      name=$(echo "${1#--}" | tr - _)
      eval "$name=\$2"
      shift 2 ;;
    serve | prefill | direct | long | steps) sections="$sections $1"; shift ;;
    *) echo "serving.sh: $1: no such option or section" >&2; exit 2 ;;
  esac
done
[ -n "$sections" ] || sections="serve prefill direct long steps"
[ -n "$label" ] || label=${kernels:-automatic}

work=$(mktemp -d)
server=
stop() {
  [ -n "$server" ] || return 0
  kill "$server" 2>/dev/null || true
  wait "$server" || true
  server=
}
trap 'stop; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

if [ -z "$model" ]; then
  if [ -z "$config" ] || [ -z "$tokenizer" ]; then
    echo "serving.sh: give --model, or --config and --tokenizer" >&2
    exit 2
  fi
  model=$work/$(basename "$config" .json)
  mkdir "$model"
  cp "$config" "$model/config.json"
  cp "$tokenizer" "$model/tokenizer.json"
fi
most=$(echo "$concurrency" | tr , '\n' | sort -n | tail -1)

# What server and engine are both told: `engine CONTEXT`.
engine() {
  echo "--load-format $load_format --max-model-len $1 --max-num-batched-tokens $batched" \
    "--gpu-memory-utilization 0.9 ${kernels:+--kernels $kernels}" \
    "$([ "$tp" = 1 ] || echo "--tensor-parallel-size $tp") ${echo:+--echo-ranks}"
}

# A server of that context, at $url.
start() {
  stop
  echo "== serve $model $(engine "$1")" >&2
  begin=$(date +%s)
  : > "$work/log"
  # shellcheck disable=SC2046
  "$binary" serve "$model" --port 0 --max-num-seqs "$most" $(engine "$1") 2> "$work/log" &
  server=$!
  until grep -q 'serving .* as "' "$work/log"; do
    kill -0 "$server" 2>/dev/null || { cat "$work/log" >&2; exit 1; }
    sleep 0.2
  done
  echo "ready after $(($(date +%s) - begin)) s; $(grep -o 'cache: .*' "$work/log" | head -1)" >&2
  url=$(sed -n 's/.*listening on \(http[^ ]*\).*/\1/p' "$work/log" | head -1)
}

memory() {
  command -v nvidia-smi > /dev/null || return 0
  nvidia-smi --query-gpu=index,memory.used,memory.total --format=csv,noheader >&2
}

failed=0
measure() {
  echo "== bench $*" >&2
  "$binary" bench "$@" --output-json "$out" || failed=1
}
has() { case " $sections " in *" $1 "*) ;; *) return 1 ;; esac; }

if has serve || has prefill; then
  start "$context"
  if has serve; then
    measure serve --base-url "$url" --label "$label" --input-len "$input" --output-len "$output" \
      --num-prompts "$prompts" --max-concurrency "$concurrency"
  fi
  if has prefill; then
    measure serve --base-url "$url" --label "$label" --input-len $((context - 64)) --output-len 1 \
      --num-prompts 4 --max-concurrency 1,4
  fi
  memory
  stop
fi
if has direct; then
  # shellcheck disable=SC2046
  measure throughput --model "$model" $(engine "$context") --label "$label" --input-len "$input" \
    --output-len "$output" --num-prompts "$prompts" --max-concurrency "$concurrency"
fi
if has long; then
  start "$long"
  for length in 1024 $((long - 512)); do
    measure serve --base-url "$url" --label "$label, context of $long" --input-len $length \
      --output-len 256 --num-prompts 1 --max-concurrency 1 --num-warmups $((length == 1024))
  done
  memory
  stop
fi
if has steps; then
  # shellcheck disable=SC2046
  measure steps --model "$model" $(engine "$context") --depth $((input + output / 2)) \
    --max-concurrency "$concurrency"
fi
exit $failed
