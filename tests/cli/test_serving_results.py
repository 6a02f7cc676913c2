"""bench/serving.sh on the demo model, and what bench/serving_table.py and bench/plot.py make of
result lines."""

import json
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest

BENCH = pathlib.Path(__file__).parents[2] / "bench"
SVG = "{http://www.w3.org/2000/svg}"


def served(concurrency, rate, label="portable", **more):
    return {"bench": "serve", "label": label, "machine": "two cards", "max_concurrency": concurrency,
            "input_len": 1024, "output_len": 1024, "completed": 32, "output_throughput": rate,
            "total_token_throughput": 2 * rate, "median_ttft_ms": 150.0, "median_tpot_ms": 4.2,
            "median_itl_ms": 4.1, "p99_itl_ms": 9.0, "median_step_ms": 4.0, **more}


LINES = [
    served(1, 99.0),  # measured again below
    served(1, 230.0), served(32, 1150.0, median_step_ms=25.0), served(1, 250.0, "automatic"),
    served(1, 7.0, "portable, context of 9000", input_len=8128, output_len=256),
    served(4, 1.0, input_len=8128, output_len=1, total_token_throughput=8129.0),
    {"bench": "throughput", "label": "portable", "max_concurrency": 1, "input_len": 1024,
     "output_len": 1024, "output_throughput": 250.0},
    {"bench": "steps", "batch": 1, "depth": 1536, "bytes": 4_000_000, "limit_us": 1600.0},
    {"bench": "steps", "batch": 1, "depth": 8192, "bytes": 4_400_000, "limit_us": 1700.0},
    {"bench": "steps", "batch": 32, "depth": 1536, "bytes": 40_000_000, "limit_us": 12500.0},
    {"bench": "throughput", "test": "pp512", "machine": "two cards"},
]


def run(script, *arguments):
    return subprocess.run([sys.executable, str(BENCH / script), *map(str, arguments)],
                          capture_output=True, text=True)


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return path


def test_the_table_joins_what_belongs_together(results):
    out = run("serving_table.py", results).stdout.splitlines()
    assert [line for line in out if line and line[0] != "|"] == [
        "two cards, portable: 1,024 tokens in, 1,024 out.",
        "two cards, automatic: 1,024 tokens in, 1,024 out.",
        "two cards, portable, context of 9000: 8,128 tokens in, 256 out.",
        "two cards, portable: 8,128 tokens in, 1 out."]
    assert out[2:6] == [
        "| at once | requests | output tok/s | all tok/s | TTFT ms | TPOT ms | ITL ms | ITL p99 ms | "
        "step ms | limit ms | of limit | without HTTP | HTTP costs | reference |",
        "|" + " ---: |" * 14,
        "| 1 | 32 | 230.0 | 460 | 150.0 | 4.20 | 4.10 | 9.00 | 4.00 | 1.60 | 40.0 % | 250.0 | 8.0 % | 52.4 |",
        "| 32 | 32 | 1,150.0 | 2,300 | 150.0 | 4.20 | 4.10 | 9.00 | 25.00 | 12.50 | 50.0 % |  |  | 538.2 |"]
    # Another load: no engine alone, no reference; the limit of the depth that is nearest.
    assert "| 1 | 32 | 7.0 | 14 | 150.0 | 4.20 | 4.10 | 9.00 | 4.00 | 1.70 | 42.5 % |" in out
    assert out[-3] == "| at once | requests | all tok/s | TTFT ms | step ms |"
    assert out[-1] == "| 4 | 32 | 8,129 | 150.0 | 4.00 |"


def test_the_picture_shows_every_value(results, tmp_path):
    picture = tmp_path / "picture.svg"
    made = run("plot.py", results, "--out", picture)
    assert made.returncode == 0, made.stderr
    svg = xml.etree.ElementTree.parse(picture).getroot()
    words = [node.text for node in svg.iter(SVG + "text")]
    for value in "230", "250", "1,150", "52", "538":  # tok/s of ours and of the reference
        assert value in words
    # Parts of the limit: 1.6 / 4.0, 12.5 / 25.0; of the reference 16 %, and where a step reads
    # ten times as much 538.2 / 32 / 52.4 x 10 of that.
    for value in "40", "50", "16", "51":
        assert value in words
    assert "Seacliff on two cards, portable" in words and "Seacliff on two cards, automatic" in words
    assert any("RTX PRO 6000" in word for word in words)
    assert len(list(svg.iter(SVG + "polyline"))) == 6
    _, _, width, height = map(float, svg.get("viewBox").split())
    for circle in svg.iter(SVG + "circle"):
        assert 0 < float(circle.get("cx")) < width and 0 < float(circle.get("cy")) < height


@pytest.mark.parametrize("name, arguments", [("h200x2_serving", ()),
                                             ("h200_serving", ("--no-reference",))])
def test_the_pictures_in_the_docs_are_fresh(root, name, arguments):
    picture = root / f"docs/perf/{name}.svg"
    made = run("plot.py", root / f"bench/results/{name}.jsonl", *arguments)
    assert picture.exists() == (made.returncode == 0)
    if picture.exists():
        assert picture.read_text() == made.stdout
        assert f"]({name}.svg)" in picture.with_name("serving.md").read_text()


def test_higher_is_higher_in_the_picture(results):
    svg = xml.etree.ElementTree.fromstring(run("plot.py", results).stdout)
    lines = [[tuple(map(float, place.split(","))) for place in node.get("points").split()]
             for node in svg.iter(SVG + "polyline")]
    slow, fast = lines[0]  # 230 at 1, 1,150 at 32
    assert fast[0] > slow[0] and fast[1] < slow[1]


def test_nothing_to_draw_is_said(results):
    made = run("plot.py", results, "--output-len", 7)
    assert made.returncode == 1 and "7 out" in made.stderr


def test_the_script_measures_the_demo_model(binary, root, tmp_path):
    """All sections that need no GPU, from a config and a tokenizer, as on a machine for Flash."""
    out = tmp_path / "out.jsonl"
    command = ["sh", "bench/serving.sh", "--binary", binary, "--config", "models/tiny/config.json",
               "--tokenizer", "models/tiny/tokenizer.json", "--out", out, "--concurrency", "1,2",
               "--prompts", "0", "--input", "24", "--output", "8", "--context", "128", "--long", "2048",
               "--kernels", "portable", "serve", "prefill", "direct", "long"]
    done = subprocess.run([str(word) for word in command], cwd=root, capture_output=True, text=True,
                          timeout=250)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(line["bench"], line["max_concurrency"], line["input_len"], line["label"]) for line in lines] == [
        ("serve", 1, 24, "portable"), ("serve", 2, 24, "portable"),
        ("serve", 1, 64, "portable"), ("serve", 4, 64, "portable"),
        ("throughput", 1, 24, "portable"), ("throughput", 2, 24, "portable"),
        ("serve", 1, 1024, "portable, context of 2048"), ("serve", 1, 1536, "portable, context of 2048")]
    assert all(line["failed"] == 0 for line in lines)
    table = run("serving_table.py", out).stdout
    assert "HTTP costs" in table and "limit ms" not in table


@pytest.mark.parametrize("arguments, word", [
    (["--out"], "--out"), (["bake"], "bake"), (["serve"], "--model"),
])
def test_the_script_says_what_it_does_not_know(root, arguments, word):
    done = subprocess.run(["sh", "bench/serving.sh", *arguments], cwd=root, capture_output=True, text=True)
    assert done.returncode == 2 and word in done.stderr


def test_a_server_that_does_not_start_ends_the_script(binary, root, tmp_path):
    done = subprocess.run(["sh", "bench/serving.sh", "--binary", str(binary), "--model", "models/tiny",
                           "--kernels", "linear=none", "--out", str(tmp_path / "x"), "serve"],
                          cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "linear=none" in done.stderr
