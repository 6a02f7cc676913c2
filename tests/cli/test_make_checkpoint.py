"""tools/make_checkpoint.py writes what the engine opens: every tensor of the catalogue, in shards."""

import json
import subprocess
import sys

import numpy
from safetensors.numpy import load_file


def test_a_made_checkpoint_opens_and_computes(root, seacliff, tmp_path):
    config, ids = root / "tests/data/golden/tiny-a/config.json", tmp_path / "ids"
    subprocess.run([sys.executable, root / "tools/make_checkpoint.py", config, tmp_path,
                    "--shard-bytes", "6000000"], check=True, capture_output=True)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 3
    ids.write_text("5 17 300 44 9 1000 3 77")
    run = seacliff("logits", tmp_path, "--ids-file", ids, "--prefill", 6, "--mtp", "--device", "cpu",
                   "--log-level", "info", "--out", tmp_path / "out")
    assert run.returncode == 0, run.stderr
    assert "not used" not in run.stderr
    for logits in load_file(tmp_path / "out").values():
        if logits.dtype == numpy.float32:
            assert numpy.isfinite(logits).all() and 0.3 < logits.std() < 3
