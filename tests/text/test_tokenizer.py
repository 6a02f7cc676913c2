"""Our tokenizer against the Hugging Face engine (tokenizers) on the real V4 tokenizer.json."""

import json
import random
import subprocess
import sys

import pytest
import tokenizers
import unicodedata2

import oracle
from oracle import TOKENIZER_JSON

# The worked vectors: text and ids, added tokens recognised.
VECTORS = [
    ("Hello! 毕老师！1 + 1 = 2 ĠÑĤÐ²ÑĬÑĢ",
     "19923 3 223 5464 5008 1175 19 940 223 19 438 223 20 6113 257 76589 131 100 76032 1628 76589 "
     "131 108 76589 131 98"),
    ("Hello 你好abc123456 world!\n\n<｜User｜>x", "19923 223 30594 32372 6895 18009 2058 2596 128803 90"),
    ("✓ 12345678 你好，世界", "98795 223 6895 18009 2597 223 30594 303 3427"),
    ('don\'t !x "quoted" a\tb  \n\n c', "20385 1664 4050 90 582 403 12284 4 260 37496 6776 274"),
    ("a<think>b", "67 128821 68"),
    ("\n\n<｜DSML｜tool_calls>\n", "271 30 128825 72461 4941 12548 1018"),
    ("Done.\n\n<｜DSML｜tool_calls>", "68520 339 30 128825 72461 4941 12548 32"),
    (".<｜DSML｜tool_calls>", "32334 128825 72461 4941 12548 32"),
    ("</think>\n\n<｜DSML｜", "128822 271 30 128825"),
    ("</｜DSML｜parameter>\n", "1718 128825 41523 1018"),
    ('<｜DSML｜invoke name="get_weather">\n', "30 128825 40148 5406 2329 1281 1133 65 50219 3816"),
    ("<｜DSML｜ calls>", "30 128825 10699 32"),
]

WORDS = ["Hello", "world", "don't", "naïve", "Привет", "мир", "你好", "世界", "の", "カタカナ", "・", "゛",
         "العربية", "हिन्दी", "ไทย", "한국어", "e\u0301", "1234567", "٣٤٥", "Ⅷ", "²", "½", "①", "😀", "👩‍👩‍👧", "🇩🇪",
         "=>", "//", "\"q\"", "$x", "_a", "#!/bin/sh", "  ", "\t", "\r\n", "\n\n", " \n ", "\u3000", "\u00a0",
         "\u2028", "\u200b", "\u180e", "\ufeff", "\x00", "\x7f", "\x85", "\x1f", "'s", "...", "——", "，", "。"]


def code_points():
    """Code points by general category, and those of Unicode 15 and 16 that older tables lack."""
    groups = {}
    for code_point in range(0x110000):
        if 0xD800 <= code_point < 0xE000:
            continue
        groups.setdefault(unicodedata2.category(chr(code_point)), []).append(code_point)
    groups["new"] = [*range(0x105C0, 0x105F4), *range(0x10D40, 0x10D90), *range(0x1C89, 0x1C8B),
                     *range(0x11F00, 0x11F5A), *range(0x2EBF0, 0x2EE5E), *range(0x1E5D0, 0x1E600),
                     *range(0x16D40, 0x16D7A), *range(0x1CC00, 0x1CEB4), *range(0xA7CB, 0xA7DD),
                     *range(0x13460, 0x143FB), *range(0x31350, 0x323B0), *range(0x1FAE0, 0x1FAEA)]
    return list(groups.values())


class Maker:
    """Random strings: mixes of scripts, white space, added tokens and single rare characters."""

    def __init__(self, seed, added):
        self.random = random.Random(seed)
        self.groups = code_points()
        self.added = added

    def atom(self):
        r = self.random
        kind = r.randrange(12)
        if kind < 4:
            return r.choice(WORDS)
        if kind < 7:
            group = r.choice(self.groups)
            return "".join(chr(r.choice(group)) for _ in range(r.choice((1, 1, 1, 2, 3, 8))))
        if kind == 7:
            return r.choice(" \t\n\r\x0b\x0c\u00a0\u2003\u3000") * r.choice((1, 1, 2, 3, 7))
        if kind == 8:
            return "".join(chr(r.randrange(32, 127)) for _ in range(r.randrange(1, 12)))
        if kind == 9:
            text = r.choice(self.added)
            return text if r.random() < 0.6 else text[:r.randrange(1, len(text) + 1)]
        if kind == 10:
            ranges = ((0x4E00, 0x9FFF), (0x3040, 0x30FF), (0x0400, 0x04FF), (0x0600, 0x06FF),
                      (0x0900, 0x097F), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF))
            low, high = r.choice(ranges)
            return "".join(chr(r.randint(low, high)) for _ in range(r.randrange(1, 9)))
        point = r.randrange(0x110000)
        return chr(point if not 0xD800 <= point < 0xE000 else point + 0x800)

    def text(self):
        return "".join(self.atom() for _ in range(self.random.choice((1, 2, 3, 5, 8, 13))))

    def bytes(self):
        """As text, in UTF-8; one in four is damaged."""
        data = bytearray(self.text().encode())
        if self.random.random() < 0.25:
            for _ in range(self.random.randrange(1, 4)):
                at = self.random.randrange(len(data) + 1)
                action = self.random.randrange(3)
                if action == 0:
                    data.insert(at, self.random.randrange(128, 256))
                elif action == 1:
                    del data[at:at + self.random.randrange(1, 3)]
                elif at < len(data):
                    data[at] = self.random.randrange(256)
        return bytes(data)


@pytest.fixture(scope="module")
def file():
    return json.loads(TOKENIZER_JSON.read_text())


@pytest.fixture(scope="module")
def added(file):
    return [token["content"] for token in file["added_tokens"]]


@pytest.fixture(scope="module")
def engine():
    return tokenizers.Tokenizer.from_file(str(TOKENIZER_JSON))


@pytest.fixture(scope="module")
def plain_engine(file):
    return tokenizers.Tokenizer.from_str(json.dumps({**file, "added_tokens": []}))


def test_unicode_tables_are_up_to_date():
    generator = oracle.ROOT / "tools/unicode/generate.py"
    subprocess.run([sys.executable, generator, "--check"], check=True)


def test_vectors(driver, engine):
    texts = [text for text, _ in VECTORS]
    expected = [[int(word) for word in ids.split()] for _, ids in VECTORS]
    assert [encoding.ids for encoding in engine.encode_batch(texts)] == expected
    assert driver.encode([text.encode() for text in texts], special=True) == expected


def check(driver, engine, texts, special):
    ours = driver.encode(texts, special)
    decoded = [text.decode("utf-8", errors="replace") for text in texts]
    theirs = [encoding.ids for encoding in engine.encode_batch(decoded)]
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    assert not wrong, (len(wrong), texts[wrong[0]], ours[wrong[0]], theirs[wrong[0]])
    back = driver.decode(ours)
    assert back == [text.encode() for text in decoded]


@pytest.mark.parametrize("special", [True, False])
def test_random_text(driver, engine, plain_engine, added, slow, special):
    maker = Maker(1 + special, added)
    for _ in range(10 if slow else 1):
        texts = [maker.bytes() for _ in range(10_000)]
        check(driver, engine if special else plain_engine, texts, special)


def test_every_code_point(driver, plain_engine):
    """Each code point alone, before and after a letter, a space, a digit and a punctuation mark."""
    step = 257
    points = [p for p in range(0x110000) if not 0xD800 <= p < 0xE000]
    texts = []
    for start in range(0, len(points), step):
        for pattern in ("{}", "a{}b", " {}!", "1{}\n"):
            texts.append("".join(pattern.format(chr(p)) for p in points[start:start + step]).encode())
    check(driver, plain_engine, texts, False)


def test_long_pieces(driver, plain_engine):
    random_letters = random.Random(5)
    texts = [" " * 100_000, "a" * 100_000, "😀" * 20_000, "\n" * 50_001, "=" * 70_001, " \n" * 30_000,
             "".join(random_letters.choices("etaoin shrdlu"[:6], k=30_000)),
             "".join(random_letters.choices("你好世界的是不了人我在有他这", k=20_000)),
             *("ab" * n for n in range(20, 40)), *("天地玄黄" * n for n in range(1, 12))]
    check(driver, plain_engine, [text.encode() for text in texts], False)
