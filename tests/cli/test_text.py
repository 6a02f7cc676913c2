"""tokenize, generate and chat on a model with made-up weights: what is said is nonsense, how it is
said is not."""

import json
import signal
import subprocess
import time


def test_tokenize_round_trip(seacliff):
    text = "A lighthouse, a keeper — and the sea.\n"
    ids = seacliff("tokenize", "models/tiny", "--ids", stdin=text)
    assert ids.returncode == 0
    assert seacliff("tokenize", "models/tiny", "--decode", "-p", ids.stdout).stdout == text


def test_tokenize_special_tokens_only_where_asked(seacliff):
    plain = seacliff("tokenize", "models/tiny", "-p", "<think>", "--ids").stdout.split()
    special = seacliff("tokenize", "models/tiny", "-p", "<think>", "--ids", "--special").stdout.split()
    assert len(plain) > 1 and len(special) == 1


def test_tokenize_decode_names_a_bad_id(seacliff):
    run = seacliff("tokenize", "models/tiny", "--decode", "-p", "1 two")
    assert run.returncode == 1 and "'two'" in run.stderr


def test_greedy_is_the_same_however_the_prompt_is_cut(seacliff, dummy):
    prompt = "Once upon a time there was a fox who lived by the sea. " * 6
    texts = set()
    for batched in (1, 7, 512):
        run = seacliff("generate", *dummy, "-p", prompt, "-n", 12, "--temperature", 0,
                       "--max-num-batched-tokens", batched)
        assert run.returncode == 0, run.stderr
        texts.add(run.stdout)
    assert len(texts) == 1


def test_generate_ends_with_a_line_of_figures(seacliff, dummy):
    run = seacliff("generate", *dummy, "-p", "Hello", "-n", 5, "--temp", 0, "--ignore-eos")
    assert run.stderr.startswith("5 tokens, ") and "tok/s, first token after" in run.stderr
    assert run.stderr.count("\n") == 1


def test_seed(seacliff, dummy):
    def text(seed):
        return seacliff("generate", *dummy, "-p", "Hello", "-n", 8, "--temperature", 1.5,
                        "--seed", seed).stdout
    assert text(7) == text(7) != text(8)


def test_stop_string_is_not_printed(seacliff, dummy):
    arguments = ("generate", *dummy, "-p", "Hello", "-n", 12, "--temperature", 0)
    whole = seacliff(*arguments).stdout.rstrip("\n")
    stop = whole[len(whole) // 2:][:3]
    assert seacliff(*arguments, "--stop", stop).stdout.rstrip("\n") == whole[:whole.index(stop)]


def test_context_is_a_limit_that_is_named(seacliff, dummy):
    run = seacliff("generate", *dummy, "--max-model-len", 8, "-p", "a b c d e f g h i j k l m n")
    assert run.returncode == 1 and run.stderr.startswith("seacliff: ")


def test_chat_in_a_pipe(seacliff, dummy, tmp_path):
    saved = tmp_path / "chat.json"
    lines = ["Hello", "And then?", f"/save {saved}", "/new", "Again", "/quit", "not read"]
    run = seacliff("chat", *dummy, "-n", 6, "--system", "Be brief.", stdin="\n".join(lines) + "\n")
    assert run.returncode == 0, run.stderr
    messages = json.loads(saved.read_text())
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    assert messages[1]["content"] == "Hello"
    for reply in (messages[2], messages[4]):
        assert reply["content"].strip() in run.stdout
    assert "> " not in run.stdout and "\x1b" not in run.stdout


def test_chat_with_reasoning_marks_it(seacliff, dummy):
    for flags in (["--think"], ["--reasoning-effort", "high"]):
        run = seacliff("chat", *dummy, "-n", 4, *flags, stdin="Hello\n")
        assert run.returncode == 0 and run.stdout.startswith("<think>\n")
        assert "</think>" in run.stdout
    run = seacliff("chat", *dummy, "-n", 4, "--think", "--reasoning-effort", "none", stdin="Hello\n")
    assert run.returncode == 0 and "think" not in run.stdout


def test_chat_unknown_command_is_an_error_in_a_pipe(seacliff, dummy):
    run = seacliff("chat", *dummy, stdin="/nonsense\n")
    assert run.returncode == 1 and "/nonsense" in run.stderr


def test_interrupt_ends_the_reply_and_not_the_program(binary, root, dummy):
    # A long reply: greedy, and the end-of-sentence token is too unlikely to come up by chance.
    chat = subprocess.Popen([binary, "chat", *dummy, "--temperature", "1.0", "--seed", "5"],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    try:
        chat.stdin.write(b"Hello\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)  # it has begun
        begin = time.monotonic()
        chat.send_signal(signal.SIGINT)
        chat.stdin.write(b"/quit\n")
        chat.stdin.close()
        assert chat.wait(timeout=60) == 0
        assert time.monotonic() - begin < 20
    finally:
        chat.kill()
        chat.stdout.close()
