"""The layouts of other releases: "-Base" (FP8 experts) and 0731 (a block drafter beside the trunk)."""

import json
import shutil
import struct

import pytest


@pytest.fixture
def model(root, tmp_path):
    """A copy of the demo model, whose files a test may change."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        shutil.copy(root / "models/tiny" / name, tmp_path)
    return tmp_path


def change_config(folder, **fields):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rename_tensors(folder, rename):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    header = json.dumps({rename(name): row for name, row in header.items()}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length:])


def test_base_checkpoints_have_fp8_experts(seacliff, model):
    change_config(model, expert_dtype="fp8")
    made_up = seacliff("generate", model, "--load-format", "dummy", "-p", "Hello", "-n", 4,
                       "--ignore-eos")
    assert made_up.returncode == 0, made_up.stderr
    assert made_up.stderr.startswith("4 tokens, ")
    stored = seacliff("generate", model, "-p", "Hello", "-n", 4)  # the file's are MXFP4
    assert stored.returncode == 1 and "expert_dtype" in stored.stderr


def test_a_block_drafter_is_left_unused_with_one_line(seacliff, model):
    def rename(name):
        if name.startswith("mtp.0.") and "_proj" in name:
            return name.replace("e_proj", "main_proj").replace("h_proj", "side_proj")
        return name.replace("mtp.0.norm.", "mtp.2.norm.")

    plain = seacliff("generate", model, "-p", "Once upon a time", "-n", 12, "--temperature", 0)
    rename_tensors(model, rename)
    change_config(model, compress_ratios=json.loads((model / "config.json").read_text())[
        "compress_ratios"] + [0, 0])
    run = seacliff("generate", model, "-p", "Once upon a time", "-n", 12, "--temperature", 0,
                   "--log-level", "info")
    assert run.returncode == 0, run.stderr
    assert run.stdout == plain.stdout
    assert run.stderr.count("block drafter (mtp.*), not used: ") == 1, run.stderr
