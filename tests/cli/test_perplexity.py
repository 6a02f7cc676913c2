"""The demo model predicts held-out text as well on the fast rows as on the reference rows, and on the
GPU as on the CPU."""

import math
import random
import sys

import numpy
import pytest
from safetensors.numpy import load_file

OPS = ("embed mhc_boundary mhc_head rms_norm linear linears grouped_linear query_rope window_insert compress "
       "index_query fused index_topk sparse_attention router experts mtp_join sample").split()
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


def perplexity(seacliff, folder, stories, *options):
    """Of all next tokens, and their number."""
    total = count = 0
    for ids in stories:
        (folder / "ids").write_text(" ".join(map(str, ids)))
        out = folder / "logits.safetensors"
        done = seacliff("logits", "models/tiny", "--ids-file", folder / "ids", "--from", 0, "--out",
                        out, *options)
        assert done.returncode == 0, done.stderr
        logits = load_file(out)["logits"].astype(numpy.float64)[:-1]
        top = logits.max(axis=1)
        norm = top + numpy.log(numpy.exp(logits - top[:, None]).sum(axis=1))
        total += (norm - logits[numpy.arange(len(logits)), ids[1:]]).sum()
        count += len(logits)
    return math.exp(total / count), count


@pytest.mark.parametrize("projection", ["bf16", "fp8"])
def test_fast_rows_predict_as_well_as_the_reference(seacliff, stories, tmp_path, projection):
    options = ["--device", "cpu", "--output-projection", projection]
    fast, count = perplexity(seacliff, tmp_path, stories, *options)
    reference, _ = perplexity(seacliff, tmp_path, stories, *options, "--kernels",
                              ",".join(f"{op}=ref" for op in OPS))
    print(f"perplexity over {count} tokens, {projection} output projection: {fast:.4f}, "
          f"reference rows {reference:.4f}")
    assert abs(fast / reference - 1) < 3e-3


def test_an_fp8_output_projection_predicts_as_well(seacliff, stories, tmp_path):
    bf16, _ = perplexity(seacliff, tmp_path, stories, "--device", "cpu")
    fp8, _ = perplexity(seacliff, tmp_path, stories, "--device", "cpu", "--output-projection", "fp8")
    assert fp8 != bf16  # the setting arrives
    assert abs(fp8 / bf16 - 1) < 3e-3


@pytest.mark.parametrize("options", [[], ["--chunk", 50], ["--prefill", 20]],
                         ids=["prefill", "chunks", "decode"])
def test_the_gpu_predicts_as_well_as_the_cpu(seacliff, stories, tmp_path, options):
    shown = seacliff("show", "kernels", "--device", "cuda")
    if shown.returncode != 0:
        pytest.skip(f"skipped: no device: {shown.stderr.strip()}")
    gpu, count = perplexity(seacliff, tmp_path, stories, "--device", "cuda", *options)
    cpu, _ = perplexity(seacliff, tmp_path, stories, "--device", "cpu")
    print(f"perplexity over {count} tokens: {gpu:.4f} on the GPU ({' '.join(map(str, options))}), "
          f"{cpu:.4f} on the CPU")
    assert abs(gpu / cpu - 1) < 3e-3
