#!/usr/bin/env python3
"""Turns the JSON lines of `seacliff check --bench --results FILE` into Markdown tables.

    python3 bench/table.py FILE [--peers FILE]

For each machine in FILE a table: a line for each op, case and row, a column for each number of
tokens. Of lines that measure the same thing the last counts. --peers: lines of other programs'
kernels (op, case, tokens, median_us, kernel), as a second table beside the fastest row of ours.
"""
import argparse
import json
import re

# Operands that pass the cache as a whole before they come again: kernels/common/device_timer.cc.
COLD_BYTES = 170_000_000

TOKENS = re.compile(r", (\d+) (?:tokens?|rows?)\b|(?<=decode) of \d+|(?<=chunk) of \d+")


def number(value):
    """Three digits at least, no false ones."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def cell(line):
    if line["of_read"] >= line["of_peak"]:
        limit = f"{100 * line['of_read']:.0f} % read"
    else:
        limit = f"{100 * line['of_peak']:.0f} % peak"
    copies = line.get("copies", 1)
    warm = "*" if copies > 1 and copies * line["bytes"] < COLD_BYTES else ""
    return f"{number(line['median_us'])}{warm}, {limit}"


def markdown(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def span(values):
    low, high = min(values), max(values)
    return f"{low:,.0f}" if f"{low:,.0f}" == f"{high:,.0f}" else f"{low:,.0f} to {high:,.0f}"


def measured(path):
    """{(machine, op, case, row, tokens): line}, in the file's order of first appearance."""
    found = {}
    with open(path, encoding="utf-8") as file:
        for text in file:
            line = json.loads(text)
            if "op" in line and "tokens" in line:
                key = (line["machine"], line["op"], line["case"], line["row"], line["tokens"])
                found[key] = line
    return found


def table(lines):
    """The lines of one machine."""
    counts = sorted({line["tokens"] for line in lines})
    groups = {}
    for line in lines:
        key = (line["op"], TOKENS.sub("", line["case"]), line["row"])
        groups.setdefault(key, {})[line["tokens"]] = cell(line)
    rows = [[*key, *(cells.get(n, "") for n in counts)] for key, cells in groups.items()]
    return markdown(["op", "case", "row", *(f"{n:,}" for n in counts)], rows)


def beside(lines, peers):
    """Where a peer has a line: ours, theirs, and how many times as fast ours is."""
    fastest = {}
    for line in lines:
        key = (line["op"], line["case"])
        if key not in fastest or line["median_us"] < fastest[key]["median_us"]:
            fastest[key] = line
    rows = []
    for peer in peers:
        ours = fastest.get((peer["op"], peer["case"]))
        if ours is not None:
            times = peer["median_us"] / ours["median_us"]
            rows.append([peer["op"], peer["case"], f"{number(ours['median_us'])}",
                         peer["kernel"], number(peer["median_us"]), f"{times:.2f}"])
    return markdown(["op", "case", "us", "other kernel", "its us", "times as fast"], rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file")
    parser.add_argument("--peers")
    options = parser.parse_args()
    found = measured(options.file)
    out = []
    for machine in dict.fromkeys(key[0] for key in found):
        lines = [line for key, line in found.items() if key[0] == machine]
        out += [f"{machine}: reads {span([line['read_gbps'] for line in lines])} GB/s, multiplies "
                f"{span([line['peak_tflops'] for line in lines])} TFLOP/s.", "", *table(lines), ""]
        if options.peers:
            with open(options.peers, encoding="utf-8") as file:
                peers = [json.loads(text) for text in file]
            out += [*beside(lines, peers), ""]
    print("\n".join(out).rstrip())


if __name__ == "__main__":
    main()
