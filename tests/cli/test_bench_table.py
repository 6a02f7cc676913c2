"""bench/table.py: JSON lines of `seacliff check --bench` as Markdown tables."""
import json
import pathlib
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parents[2] / "bench" / "table.py"


def line(case, tokens, us, of_read=0.5, of_peak=0.1, row="cuda", op="linear", copies=7,
         size=33_600_000):
    return {"op": op, "row": row, "case": case, "tokens": tokens, "median_us": us, "bytes": size,
            "read_gbps": 4700.0, "peak_tflops": 645.0, "of_read": of_read, "of_peak": of_peak,
            "copies": copies, "machine": "a card"}


def printed(tmp_path, lines, *more):
    file = tmp_path / "lines.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    run = subprocess.run([sys.executable, str(SCRIPT), str(file), *more], capture_output=True,
                         text=True, check=True)
    return run.stdout.splitlines()


def test_tokens_become_columns_and_the_last_measurement_counts(tmp_path):
    out = printed(tmp_path, [
        line("flash wo_b, 1 token", 1, 99),
        line("flash wo_b, 8192 tokens", 8192, 2130.4, of_read=0.02, of_peak=0.4),
        line("flash wo_b, quantised, 8 tokens", 8, 12.345, copies=2, size=1000),
        line("flash, decode of 8 at 64K", 8, 150.26, op="index_topk"),
        line("flash wo_b, 1 token", 1, 16.754),
        {"bench": "throughput", "machine": "a card"},
    ])
    assert out == [
        "a card: reads 4,700 GB/s, multiplies 645 TFLOP/s.",
        "",
        "| op | case | row | 1 | 8 | 8,192 |",
        "|---|---|---|---|---|---|",
        "| linear | flash wo_b | cuda | 16.75, 50 % read |  | 2,130, 40 % peak |",
        "| linear | flash wo_b, quantised | cuda |  | 12.35*, 50 % read |  |",
        "| index_topk | flash, decode at 64K | cuda |  | 150.3, 50 % read |  |",
    ]


def test_peers_stand_beside_the_fastest_row(tmp_path):
    peers = tmp_path / "peers.jsonl"
    peers.write_text(json.dumps({"op": "linear", "case": "wq, 1 token", "median_us": 20.0,
                                 "kernel": "theirs"}) + "\n" +
                     json.dumps({"op": "linear", "case": "not ours", "median_us": 1.0,
                                 "kernel": "theirs"}) + "\n")
    out = printed(tmp_path, [line("wq, 1 token", 1, 10, row="sm90"), line("wq, 1 token", 1, 12)],
                  "--peers", str(peers))
    assert out[-3:] == [
        "| op | case | us | other kernel | its us | times as fast |",
        "|---|---|---|---|---|---|",
        "| linear | wq, 1 token | 10.00 | theirs | 20.00 | 2.00 |",
    ]
