"""seacliff logits against the official implementation's vectors."""

import numpy
import pytest
from safetensors.numpy import load_file

MODEL = "tests/data/golden/tiny-a"


@pytest.mark.parametrize("length, chunk", [(3, 0), (128, 50)])
def test_logits_agree_with_the_golden_vectors(seacliff, root, tmp_path, length, chunk):
    golden = load_file(root / MODEL / "golden_exact.safetensors")
    tokens, expected = golden[f"len{length}.tokens"], golden[f"len{length}.logits"]
    ids, out = tmp_path / "ids", tmp_path / "out.safetensors"
    ids.write_text(" ".join(map(str, tokens)))
    run = seacliff("logits", MODEL, "--ids-file", ids, "--prefill", length, "--chunk", chunk,
                   "--numerics", "exact", "--layers", "--mtp", "--out", out)
    assert run.returncode == 0, run.stderr
    ours = load_file(out)
    assert ours["logits"].shape == expected.shape
    for name, ours_name in [("logits", "logits"), ("layers_last_token", "layers_last_token"),
                            ("mtp_logits", "mtp_logits")]:
        reference = golden[f"len{length}.{name}"]
        error = numpy.abs(ours[ours_name] - reference).max() / numpy.abs(reference).max()
        assert error < 1e-5, (name, error)
