"""seacliff bench throughput and check --bench: what they print and write."""

import json

import pytest

CONFIG = "tests/data/golden/tiny-a/config.json"
DUMMY = ("--config", CONFIG, "--load-format", "dummy", "--input-len", 12, "--output-len", 3,
         "--num-prompts", 2, "--depth", 5, "--max-num-batched-tokens", 8, "--repeat", 3)


def isas(seacliff):
    """The instruction sets of this machine, as an error lists them."""
    run = seacliff("check", "rms_norm", "--isa", "z80")
    assert run.returncode == 1 and run.stderr.startswith("seacliff: --isa: ")
    return run.stderr.split(": ")[-1].strip().split(", ")


def test_throughput_of_made_up_weights(seacliff, tmp_path):
    out = tmp_path / "out.jsonl"
    run = seacliff("bench", "throughput", *DUMMY, "--profile", "--machine", "a \"test\"",
                   "--output-json", out)
    assert run.returncode == 0, run.stderr
    assert "rows: embed=" in run.stdout and "between ops" in run.stdout
    prefill, decode = [json.loads(line) for line in out.read_text().splitlines()]
    assert (prefill["test"], decode["test"]) == ("pp12 @ d5", "tg3 @ d17")
    assert (prefill["tokens"], prefill["steps"]) == (24, 3)  # 2 x 12 tokens in steps of 8
    assert (decode["tokens"], decode["steps"]) == (6, 3)
    for line in prefill, decode:
        assert line["machine"] == 'a "test"' and line["model"] == CONFIG
        assert line["isa"] == isas(seacliff)[-1]
        assert line["batch"] == 2 and line["repeat"] == 3
        assert line["min_s"] <= line["median_s"] <= line["max_s"]
        assert line["tok_per_s"] == pytest.approx(line["tokens"] / line["median_s"])
        gbps = line["bytes_per_step"] * line["steps"] / line["median_s"] / 1e9
        assert line["gbps"] == pytest.approx(gbps, rel=1e-3)
        assert line["of_read"] == pytest.approx(line["gbps"] / line["read_gbps"], rel=1e-3)
        assert line["of_peak"] == pytest.approx(line["gflops"] / line["peak_gflops"], rel=1e-3)
        assert "--depth 5" in line["command"] and CONFIG in line["command"]
    assert f"{decode['tok_per_s']:.1f}" in run.stdout


def test_a_step_reads_all_weights_but_those_of_other_experts(seacliff, root, tmp_path):
    """One token, no cache: the bytes are those of the tensors, less what no token asks for."""
    run = seacliff("show", "tensors", "--config", CONFIG)
    assert run.returncode == 0
    out = tmp_path / "out.jsonl"
    run = seacliff("bench", "throughput", *DUMMY[:4], "--input-len", 0, "--output-len", 1,
                   "--repeat", 1, "--threads", 1, "--output-json", out)
    assert run.returncode == 0, run.stderr
    line = json.loads(out.read_text())
    assert line["test"] == "tg1"
    config = json.loads((root / CONFIG).read_text())
    # From below: the head alone. From above: all of the checkpoint, which holds every expert.
    stored = sum(path.stat().st_size for path in (root / CONFIG).parent.glob("model-*.safetensors"))
    assert config["vocab_size"] * config["hidden_size"] * 2 < line["bytes_per_step"] < stored


def test_a_lesser_instruction_set(seacliff, tmp_path):
    names = isas(seacliff)
    out = tmp_path / "out.jsonl"
    run = seacliff("bench", "throughput", *DUMMY, "--isa", names[0], "--repeat", 1, "--output-json", out)
    assert run.returncode == 0, run.stderr
    assert json.loads(out.read_text().splitlines()[0])["isa"] == names[0]
    for name in names:
        assert seacliff("check", "rms_norm", "--row", "cpu", "--isa", name).returncode == 0


@pytest.mark.parametrize("arguments, word", [
    (["throughput"], "--model"),
    (["throughput", "--config", CONFIG], "--load-format dummy"),
    (["throughput", "--config", CONFIG, "--model", "models/tiny"], "either"),
    (["throughput", "--config", "no/such.json", "--load-format", "dummy"], "no/such.json"),
    (["throughput", "--model", "no/such/dir"], "no/such/dir"),
    (["throughput", *DUMMY, "--device", "cuda"], "--device"),
    (["throughput", *DUMMY, "--isa", "z80"], "--isa"),
    (["throughput", *DUMMY, "--kernels", "rms_norm=fast"], "rms_norm=fast"),
    (["throughput", *DUMMY[:4], "--input-len", 0, "--output-len", 0], "--output-len"),
    (["throughput", *DUMMY[:4], "--depth", 1048576], "more than the model's"),
    (["throughput", "--model", "models/tiny", "--max-concurrency", 1, "--max-sms", 48], "--max-sms"),
    (["serve", "--smem-limit", "99K"], "--smem-limit"),
])
def test_errors_are_one_line(seacliff, arguments, word):
    run = seacliff("bench", *arguments)
    assert run.returncode == 1
    assert run.stderr.startswith("seacliff: ") and run.stderr.count("\n") == 1
    assert word in run.stderr
