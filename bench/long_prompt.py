#!/usr/bin/env python3
"""How long others wait for their next token while one long prompt is computed.

    seacliff serve DIR --max-model-len 40960 --max-num-seqs 17 &
    python3 bench/long_prompt.py --base-url http://127.0.0.1:8000

Prints one JSON line: percentiles of the time between tokens (ITL, ms) of requests that decode, over
the five seconds before the long prompt comes and until its first token, and that token's TTFT (s).
"""
import argparse
import http.client
import json
import random
import threading
import time
import urllib.parse

PARTS = (0.5, 0.9, 0.99, 0.999, 1.0)


def stream(address, body):
    """Yields the time of each chunk of the reply."""
    connection = http.client.HTTPConnection(address, timeout=600)
    body = {"stream": True, "ignore_eos": True, "temperature": 1, **body}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        raise SystemExit(f"{reply.status}: {reply.read().decode()}")
    for line in reply:
        if line.startswith(b"data: {"):
            yield time.monotonic()


def percentiles(stamps, begin, end):
    gaps = sorted((later - time_) * 1e3 for times in stamps for time_, later in zip(times, times[1:])
                  if begin <= time_ and later <= end)
    if not gaps:
        raise SystemExit("nobody decoded: give --output-len more tokens")
    return {f"p{100 * part:g}": round(gaps[int(part * (len(gaps) - 1))], 1) for part in PARTS}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--base-url", default="http://127.0.0.1:8000")
    parser.add_argument("--decodes", type=int, default=16, help="requests that decode")
    parser.add_argument("--input-len", type=int, default=32000, help="of the long prompt")
    parser.add_argument("--output-len", type=int, default=4000, help="of those that decode")
    parser.add_argument("--vocab-size", type=int, default=100000)
    options = parser.parse_args()
    address = urllib.parse.urlsplit(options.base_url).netloc
    draw = random.Random(5)

    def prompt(size):
        return [draw.randrange(1000, options.vocab_size) for _ in range(size)]

    def decode(times, body):
        for at in stream(address, body):
            times.append(at)

    stamps = [[] for _ in range(options.decodes)]
    for times in stamps:
        body = {"prompt": prompt(256), "max_tokens": options.output_len}
        threading.Thread(target=decode, args=(times, body), daemon=True).start()
    time.sleep(8)
    begin = time.monotonic()
    end = next(stream(address, {"prompt": prompt(options.input_len), "max_tokens": 1}))
    print(json.dumps({"decodes": options.decodes, "input_len": options.input_len,
                      "ttft_s": round(end - begin, 2),
                      "itl_ms_before": percentiles(stamps, begin - 5, begin),
                      "itl_ms_meanwhile": percentiles(stamps, begin, end)}))


if __name__ == "__main__":
    main()
