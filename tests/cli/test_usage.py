"""What a person sees who gets the command line wrong, or asks for help."""

import pytest


def test_version(seacliff):
    run = seacliff("--version")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("seacliff 0.")


@pytest.mark.parametrize("arguments, word", [
    ([], "subcommand"),
    (["serve"], "DIR"),
    (["serve", "d", "--port", "65536"], "--port: must be between 0 and 65535"),
    (["serve", "d", "--port", "http"], "--port: must be a whole number"),
    (["serve", "d", "--max-num-seqs", "0"], "--max-num-seqs"),
    (["serve", "d", "--kv-cache-memory", "8X"], "--kv-cache-memory: must be a size"),
    (["generate", "d", "--numerics", "fp8"], "--numerics: must be one of checkpoint, exact"),
    (["generate", "d", "--no-such-flag"], "--no-such-flag"),
    (["show", "kernels", "--device", "tpu"], "--device: must be one of auto"),
    (["show", "nothing"], "TABLE: must be one of kernels"),
    (["no-such-command"], "no-such-command"),
])
def test_usage_errors_are_one_line_that_names_the_flag(seacliff, arguments, word):
    run = seacliff(*arguments)
    assert run.returncode == 2
    assert run.stdout == ""
    assert run.stderr.startswith("seacliff: ") and run.stderr.count("\n") == 1
    assert word in run.stderr


@pytest.mark.parametrize("arguments, word", [
    (["generate", "no/such/dir", "-p", "x"], "no/such/dir"),
    (["serve", "no/such/dir"], "no/such/dir"),
    (["show", "tensors"], "--config"),
    (["show", "kernels", "--kernels", "rms_norm=fast"], "rms_norm=fast"),
    (["logits", "tests/data/golden/tiny-a", "--ids-file", "x", "--out", ""], "--out"),
])
def test_other_errors_are_one_line_that_names_what(seacliff, arguments, word):
    run = seacliff(*arguments)
    assert run.returncode == 1
    assert run.stderr.startswith("seacliff: ") and run.stderr.count("\n") == 1
    assert word in run.stderr


@pytest.mark.parametrize("command", ["serve", "generate", "chat", "tokenize", "logits", "check", "bench",
                                     "show"])
def test_help_has_every_flag_of_the_table(seacliff, command):
    run = seacliff(command, "--help")
    assert run.returncode == 0
    rows = [line for line in seacliff("show", "settings").stdout.split("\n") if line[:1] in "-["]
    for row in filter(None, rows):
        if command in row.split():
            assert row.split()[0] in run.stdout.replace("OP", "[OP]")


def test_tables(seacliff):
    for table, word in [("kernels", "rms_norm"), ("settings", "--port"), ("routes", "/completions"),
                        ("cache", "compressed_128")]:
        run = seacliff("show", table)
        assert run.returncode == 0 and word in run.stdout
    run = seacliff("show", "tensors", "--config", "tests/data/configs/flash.json")
    assert "embed.weight" in run.stdout
    run = seacliff("show", "specials", "--model", "models/tiny")
    assert "<think>" in run.stdout
