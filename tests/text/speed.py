#!/usr/bin/env python3
"""Prints how fast text_oracle encodes: files given, and runs of one character. Not a test.

Usage: speed.py [--driver TEXT_ORACLE] [FILE...]      (the real V4 tokenizer, one core, best of three)
"""

import argparse
import pathlib
import random

import oracle


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", help="default: the newest in build/")
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    texts = {path.name: path.read_bytes() for path in arguments.files}
    letters = random.Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=1_000_000)
    emoji = random.Random(1).choices([*range(0x1F300, 0x1F5FF), *range(0x1F600, 0x1F650)], k=250_000)
    texts.update({"spaces": b" " * 1_000_000, "one letter": b"a" * 1_000_000,
                  "line ends": b"\n" * 1_000_000, "emoji": "😀".encode() * 250_000,
                  "mixed emoji": "".join(map(chr, emoji)).encode(),
                  "random letters": "".join(letters).encode()})
    driver = oracle.Driver(arguments.driver or oracle.find_driver())
    for (name, text), seconds in zip(texts.items(), driver.time(list(texts.values()))):
        size = len(text) / 1e6
        print(f"{name:30} {size:6.1f} MB {seconds * 1e3:8.1f} ms {size / seconds:8.1f} MB/s")


if __name__ == "__main__":
    main()
