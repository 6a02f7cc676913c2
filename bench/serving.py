"""Result lines of serving benchmarks, joined: what bench/serving_table.py and bench/plot.py show.

A file holds JSON lines of `seacliff bench serve`, `bench throughput --max-concurrency` and
`bench steps`, in any order; of lines that measure the same thing the last counts.
"""
import json
import pathlib

# The reference point: vLLM with Triton fallback kernels on two RTX PRO 6000, output tok/s
# at 1,024 tokens in and out, 32 prompts. At concurrency 1 this is 16 % of that machine's limit.
REFERENCE = pathlib.Path(__file__).parent / "results" / "serving_reference.jsonl"


def read(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(text) for text in file if text.strip()]


def add_arguments(parser):
    parser.add_argument("file")
    parser.add_argument("--no-reference", action="store_true",
                        help="without the reference point, which is of another model or load")


def results_of(options):
    references = [] if options.no_reference else read(REFERENCE)
    return Results(references + read(options.file))


def config_of(line):
    """What a line must have in common with another to stand beside it: (label, input_len,
    output_len). The label says what the server ran: --label."""
    return (line.get("label", ""), line["input_len"], line["output_len"])


class Results:
    """The lines of one file."""

    def __init__(self, lines):
        self.served, self.direct, self.limits, self.references = {}, {}, {}, {}
        for line in lines:
            if line.get("reference"):
                self.references[line["max_concurrency"]] = line
            elif line["bench"] == "serve":
                self.served[config_of(line), line["max_concurrency"]] = line
            elif line["bench"] == "throughput" and "max_concurrency" in line:
                self.direct[config_of(line), line["max_concurrency"]] = line
            elif line["bench"] == "steps":
                self.limits.setdefault(line["batch"], {})[line["depth"]] = line

    def configs(self):
        """(label, input_len, output_len) of what was served, in the file's order."""
        return list(dict.fromkeys(config for config, _ in self.served))

    def rows(self, config):
        """The lines of one configuration by concurrency."""
        return {n: line for (c, n), line in sorted(self.served.items(), key=lambda item: item[0][1])
                if c == config}

    def limit(self, line):
        """The line that counts the bytes of a step of so many sequences, at the depth nearest to
        the middle of the replies; None where there is none, or none near enough."""
        found = self.limits.get(line["max_concurrency"])
        if not found or line["output_len"] == 1:  # a prefill
            return None
        middle = line["input_len"] + line["output_len"] / 2
        nearest = min(found, key=lambda depth: abs(depth - middle))
        return found[nearest] if abs(nearest - middle) <= middle / 2 else None

    def limit_ms(self, line):
        """What reading those bytes takes."""
        limit = self.limit(line)
        return limit and limit["limit_us"] / 1e3

    def of_limit(self, line):
        """The part of the limit that the median decode step reaches."""
        limit = self.limit_ms(line)
        if limit is None or "median_step_ms" not in line:
            return None
        return limit / line["median_step_ms"]

    def reference_of_limit(self, concurrency):
        """The reference's part of its own machine's limit, which is known at one concurrency; at
        others a step reads as many times the bytes as ours does there."""
        known = next((n for n, line in self.references.items() if "of_limit" in line), None)
        here = self.references.get(concurrency)
        if known is None or here is None:
            return None
        base = self.references[known]
        reads, base_reads = self.limit(here), self.limit(base)
        if reads is None or base_reads is None:
            return here.get("of_limit")
        steps = (here["output_throughput"] / concurrency) / (base["output_throughput"] / known)
        return base["of_limit"] * steps * reads["bytes"] / base_reads["bytes"]
