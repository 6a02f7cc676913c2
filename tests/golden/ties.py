"""Shows which near-tie may have parted a row of logits from the golden vectors.

With random weights a rounding can turn a discrete choice (experts of a token, top-k blocks), and a row
then parts by far more than rounding alone. For the worst rows of a golden file this prints their error and
the narrowest choices that the row's own token made. It proves nothing about rows that merely round
differently.

    python3 tests/golden/ties.py --binary build/cpu/seacliff --length 300 [--rows 10]
"""

import argparse
import json
import pathlib
import struct
import subprocess
import tempfile

import numpy as np

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "data/golden/tiny-a"


def read(path):
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    types = {"F32": np.float32, "I32": np.int32}
    return {
        name: np.frombuffer(data, types[info["dtype"]], offset=8 + size + info["data_offsets"][0],
                            count=int(np.prod(info["shape"]))).reshape(info["shape"])
        for name, info in header.items() if name != "__metadata__"
    }


def run(binary, tokens, length, folder):
    ids, out = folder / "ids.txt", folder / "out.safetensors"
    ids.write_text(" ".join(map(str, tokens)))
    subprocess.run([binary, "logits", str(GOLDEN), "--ids-file", str(ids), "--prefill", str(length), "--margins",
                    "--out", str(out)], check=True, stderr=subprocess.DEVNULL)
    return read(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--length", type=int, default=300)
    parser.add_argument("--rows", type=int, default=10)
    args = parser.parse_args()

    golden = read(GOLDEN / "golden_quant.safetensors")
    tokens, theirs = golden[f"len{args.length}.tokens"], golden[f"len{args.length}.logits"]
    with tempfile.TemporaryDirectory() as folder:
        ours = run(args.binary, tokens, args.length, pathlib.Path(folder))
    errors = np.linalg.norm(ours["logits"] - theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    print(f"length {args.length}: {len(errors)} rows, median error {np.median(errors):.2e}")
    print(f"{'row':>4} {'error':>8}  narrowest choices of its token (all rows' median beside each)")
    for row in np.argsort(-errors)[: args.rows]:
        choices = []
        for kind in ("expert", "index"):
            margins = ours[f"{kind}_margin"]
            for layer in range(margins.shape[1]):
                value = margins[args.length - 1 + row, layer]
                column = margins[args.length - 1 :, layer]
                if np.isfinite(value):
                    choices.append((value / np.median(column), value, kind, layer, np.median(column)))
        text = ", ".join(f"layer {layer} {kind} by {value:.1e} ({median:.1e})"
                         for _, value, kind, layer, median in sorted(choices)[:2])
        print(f"{row:>4} {errors[row]:>8.2e}  {text}")


if __name__ == "__main__":
    main()
