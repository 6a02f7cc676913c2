"""The demo model's tokenizer: training and writing tokenizer.json in V4's form.

ids 0-2 BOS, EOS, PAD; 3-258 the bytes; merge i makes id 259 + i; the other added
tokens come last. The pretokenizer is V4's: three Splits and ByteLevel.
"""
import json
import pathlib
import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import encoding as E

SPLITS = (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
          r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")
CONTROL = re.compile("|".join(re.escape(t) for t in E.FIRST_TOKENS + E.LAST_TOKENS))


def byte_alphabet():
    """The 256 printable stand-ins of the bytes, in GPT-2's order."""
    keep = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in keep] + [chr(256 + i) for i in range(256 - len(keep))]


def pretokenizer():
    steps = [pre_tokenizers.Split(Regex(p), "isolated") for p in SPLITS]
    return pre_tokenizers.Sequence(steps + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train(texts, vocab_size):
    """The merges, as pairs, learnt from texts; control tokens are cut out first."""
    want = vocab_size - 3 - 256 - len(E.LAST_TOKENS)
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pretokenizer()
    trainer = trainers.BpeTrainer(vocab_size=256 + want + 64, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    t.train_from_iterator((piece for text in texts for piece in CONTROL.split(text) if piece), trainer)
    merges, made = [], set(byte_alphabet())
    for pair in json.loads(t.to_str())["model"]["merges"]:
        left, right = pair if isinstance(pair, list) else pair.split(" ")
        if left in made and right in made and left + right not in made:
            merges.append((left, right))
            made.add(left + right)
    return merges[:want]


def write(merges, folder):
    names = list(E.FIRST_TOKENS) + byte_alphabet() + [a + b for a, b in merges]
    vocab = {n: i for i, n in enumerate(names)}
    added = [(i, t) for i, t in enumerate(E.FIRST_TOKENS)] + [(len(names) + i, t) for i, t in enumerate(E.LAST_TOKENS)]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    level = dict(type="ByteLevel", add_prefix_space=False, trim_offsets=True)
    doc = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=i, content=t, **flags, special=t in E.FIRST_TOKENS) for i, t in added],
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated", "invert": False} for p in SPLITS]
            + [dict(level, use_regex=False)]},
        "post_processor": dict(level, trim_offsets=False, use_regex=True),
        "decoder": dict(level, use_regex=True),
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": [f"{a} {b}" for a, b in merges]},
    }
    folder = pathlib.Path(folder)
    (folder / "tokenizer.json").write_text(json.dumps(doc, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")

    def token(text):
        return {"__type": "AddedToken", "content": text, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    settings = {"add_bos_token": False, "add_eos_token": False, "bos_token": token(E.BOS), "clean_up_tokenization_spaces": False,
                "eos_token": token(E.EOS), "legacy": True, "model_max_length": 4096, "pad_token": token(E.PAD),
                "sp_model_kwargs": {}, "unk_token": None, "tokenizer_class": "LlamaTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def load(folder):
    return Tokenizer.from_file(str(pathlib.Path(folder) / "tokenizer.json"))
