#!/usr/bin/env python3
"""Writes prompts.json: what the demo model is asked in greedy_test.cc. The first openings, questions
and requests that tools/demo_model's generator makes from seeds that no training run used, in its
order: `python3 tests/gpu/prompts.py`."""

import json
import pathlib
import random
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tools/demo_model"))

import encoding  # noqa: E402
import gen_chat  # noqa: E402
import gen_stories  # noqa: E402
from words import HELD_OUT_SEED  # noqa: E402


def opening(i):
    words = gen_stories.story(random.Random(HELD_OUT_SEED + i))[1].split()
    return encoding.BOS + " ".join(words[:12])


def asked(dialogue, i):
    messages, thinking = dialogue(random.Random(HELD_OUT_SEED + i), thinking=i % 2 == 1)[:2]
    first_reply = next(j for j, m in enumerate(messages) if m["role"] == "assistant")
    return encoding.render(messages[:first_reply], thinking)


prompts = [opening(i) for i in range(10)]
prompts += [asked(gen_chat.story_request, i) for i in range(5)]
prompts += [asked(gen_chat.qa, i) for i in range(5)]
(HERE / "prompts.json").write_text(json.dumps(prompts, indent=1, ensure_ascii=False) + "\n")
