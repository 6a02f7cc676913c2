"""The demo model predicts held-out text as well on the fast rows as on the reference rows."""

import math
import random
import sys

import numpy
import pytest
from safetensors.numpy import load_file

OPS = ("embed mhc_boundary mhc_head rms_norm linear grouped_linear query_rope window_insert compress "
       "index_query index_topk sparse_attention router experts sample").split()
STORIES = 8


@pytest.fixture(scope="session")
def stories(root, seacliff):
    """Token ids of stories from seeds that no training run used."""
    sys.path.insert(0, str(root / "tools/demo_model"))
    import gen_stories
    texts = [gen_stories.story(random.Random(9_000_000 + i))[1] for i in range(STORIES)]
    ids = []
    for text in texts:
        done = seacliff("tokenize", "models/tiny", "--ids", stdin=text)
        assert done.returncode == 0, done.stderr
        ids.append([0, *map(int, done.stdout.split())])  # 0 begins every text
    return ids


def loss(seacliff, folder, stories, *options):
    """Sum of -log p over all next tokens, and their number."""
    total = count = 0
    for i, ids in enumerate(stories):
        (folder / "ids").write_text(" ".join(map(str, ids)))
        out = folder / "logits.safetensors"
        done = seacliff("logits", "models/tiny", "--ids-file", folder / "ids", "--from", 0, "--out",
                        out, "--device", "cpu", *options)
        assert done.returncode == 0, done.stderr
        logits = load_file(out)["logits"].astype(numpy.float64)[:-1]
        top = logits.max(axis=1)
        norm = top + numpy.log(numpy.exp(logits - top[:, None]).sum(axis=1))
        total += (norm - logits[numpy.arange(len(logits)), ids[1:]]).sum()
        count += len(logits)
    return total, count


def test_fast_rows_predict_as_well_as_the_reference(seacliff, stories, tmp_path):
    fast, count = loss(seacliff, tmp_path, stories)
    reference, _ = loss(seacliff, tmp_path, stories, "--kernels", ",".join(f"{op}=ref" for op in OPS))
    fast, reference = math.exp(fast / count), math.exp(reference / count)
    print(f"perplexity over {count} tokens: {fast:.4f}, reference rows {reference:.4f}")
    assert abs(fast / reference - 1) < 3e-3
