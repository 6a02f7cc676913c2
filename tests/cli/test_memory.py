"""seacliff show memory: plans that add up, and advice that helps when it is followed."""

import re

import pytest

FLASH = ("show", "memory", "--config", "tests/data/configs/flash.json")


def lines(text):
    """{name: bytes} of the plan's lines, and those of each heading's parts, which are indented."""
    plan, parts = {}, {}
    for line in text.splitlines():
        found = re.match(r"( *)([a-z_0-9 ,]+?) +([\d,]+) +[\d.]+ [GM]iB", line)
        if not found:
            continue
        value = int(found.group(3).replace(",", ""))
        if found.group(1):
            parts.setdefault(heading, []).append(value)
        else:
            heading = found.group(2)
            plan[heading] = value
    return plan, parts


def test_flash_fits_on_two_gpus_of_141_gib(seacliff):
    run = seacliff(*FLASH, "--device-memory", "141G", "--tensor-parallel-size", 2, "--max-model-len", 8192)
    assert run.returncode == 0, run.stderr
    plan, parts = lines(run.stdout)
    for heading in "weights", "a step", "cache":
        assert sum(parts[heading]) == plan[heading]
    assert plan["weights"] + plan["a step"] + plan["cache"] == plan["sum"]
    assert plan["may be used"] == (141 << 30) * 9 // 10 >= plan["sum"]
    assert "of 8 K (the longest)" in run.stdout and "\nfits: " in run.stdout


def test_flash_alone_wants_a_second_gpu(seacliff):
    run = seacliff(*FLASH, "--device-memory", "141G")
    assert run.returncode == 0
    assert "the weights alone need 145.30 GiB" in run.stdout
    assert "2 GPUs of this size would hold the model" in run.stdout


@pytest.mark.parametrize("settings", [
    ("--device-memory", "141G", "--max-num-seqs", 4096, "--max-num-batched-tokens", 8192,
     "--tensor-parallel-size", 2),
    ("--device-memory", "85G", "--max-model-len", 1048576, "--tensor-parallel-size", 2),
    ("--device-memory", "80G", "--kv-cache-memory", "100G", "--tensor-parallel-size", 4),
    ("--device-memory", "90112M", "--max-model-len", 1048576, "--max-num-seqs", 512,
     "--max-num-batched-tokens", 16384, "--tensor-parallel-size", 2),
])
def test_advice_makes_it_fit(seacliff, settings):
    run = seacliff(*FLASH, *settings)
    assert run.returncode == 0, run.stderr
    advice = re.findall(r"^  (--.*?),?$", run.stdout, re.MULTILINE)
    assert "does not fit" in run.stdout and advice
    for flags in advice:
        again = seacliff(*FLASH, *settings, *flags.split())
        assert again.returncode == 0 and "\nfits: " in again.stdout, flags


def test_a_host_has_packed_weights_and_no_workspace(seacliff):
    run = seacliff("show", "memory", "--model", "models/tiny", "--device", "cpu", "--device-memory", "8G")
    assert run.returncode == 0, run.stderr
    plan, parts = lines(run.stdout)
    assert plan["may be used"] == 8 << 30
    assert "packed" in run.stdout and "workspace" not in run.stdout and "\nfits: " in run.stdout
    assert sum(parts["cache"]) == plan["cache"]


@pytest.mark.parametrize("arguments, word", [
    (("show", "memory"), "--config"),
    ((*FLASH, "--device-memory", "141G", "--tensor-parallel-size", 3), "num_attention_heads"),
    ((*FLASH, "--device", "cpu", "--tensor-parallel-size", 2), "--tensor-parallel-size"),
    ((*FLASH, "--device-memory", "141G", "--max-num-seqs", 600), "max_num_batched_tokens"),
    ((*FLASH, "--device-memory", "141G", "--kv-cache-memory", "1M"), "kv_cache_memory"),
])
def test_errors_are_one_line(seacliff, arguments, word):
    run = seacliff(*arguments)
    assert run.returncode == 1
    assert run.stderr.startswith("seacliff: ") and run.stderr.count("\n") == 1
    assert word in run.stderr
