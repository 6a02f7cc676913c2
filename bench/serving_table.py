#!/usr/bin/env python3
"""Turns the JSON lines of serving benchmarks into the Markdown tables of docs/perf/serving.md.

    python3 bench/serving_table.py [--no-reference] FILE

For each label, input length and output length a table with a row for each concurrency. "Limit" is
what reading the bytes of one decode step takes (bench steps); "without HTTP" the same load put to
the engine in one process (bench throughput --max-concurrency).
"""
import argparse

import serving


def number(value, digits):
    return "" if value is None else f"{value:,.{digits}f}"


def percent(part):
    return "" if part is None else f"{100 * part:.1f} %"


def row_of(results, config, concurrency, line):
    direct = results.direct.get((config, concurrency), {}).get("output_throughput")
    served = line["output_throughput"]
    reference = results.references.get(concurrency, {})
    same_load = config[1:] == (reference.get("input_len"), reference.get("output_len"))
    decodes = [number(served, 1), number(line.get("median_tpot_ms"), 2),
               number(line.get("median_itl_ms"), 2), number(line.get("p99_itl_ms"), 2)]
    if line["output_len"] == 1:  # a prefill
        decodes = [""] * 4
    return [f"{concurrency}", f"{line['completed']}", decodes[0],
            number(line["total_token_throughput"], 0), number(line["median_ttft_ms"], 1), *decodes[1:],
            number(line.get("median_step_ms"), 2), number(results.limit_ms(line), 2),
            percent(results.of_limit(line)), number(direct, 1),
            percent(None if direct is None else 1 - served / direct),
            number(reference.get("output_throughput") if same_load else None, 1)]


HEADER = ["at once", "requests", "output tok/s", "all tok/s", "TTFT ms", "TPOT ms", "ITL ms",
          "ITL p99 ms", "step ms", "limit ms", "of limit", "without HTTP", "HTTP costs", "reference"]


def tables(results):
    for config in results.configs():
        rows = [row_of(results, config, n, line) for n, line in results.rows(config).items()]
        # A column that nothing is known for is left out.
        kept = [i for i in range(len(HEADER)) if any(row[i] for row in rows)]
        line = next(iter(results.rows(config).values()))
        label = f", {config[0]}" if config[0] else ""
        yield f"{line.get('machine', 'A server')}{label}: {config[1]:,} tokens in, {config[2]:,} out."
        yield ""
        for row in [HEADER, ["---:"] * len(HEADER), *rows]:
            yield "| " + " | ".join(row[i] for i in kept) + " |"
        yield ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    serving.add_arguments(parser)
    results = serving.results_of(parser.parse_args())
    print("\n".join(tables(results)).rstrip() or "Nothing is measured yet.")


if __name__ == "__main__":
    main()
