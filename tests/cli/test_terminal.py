"""`seacliff chat` on a terminal: prompt, dimmed reasoning, Ctrl-C, commands that go wrong."""

import json
import os
import pty
import select
import signal
import time

import pytest

DIM, RESET, PROMPT = b"\x1b[2m", b"\x1b[0m", b"\r\n> "


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command, folder):
        self.pid, self.screen = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execv(command[0], [str(word) for word in command])
        self.seen = b""

    def type(self, text):
        os.write(self.screen, text)

    def wait_for(self, text, seconds=60):
        """What came up to and with `text`; the rest stays for the next call."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, (text, self.seen[-2000:])
            if not select.select([self.screen], [], [], left)[0]:
                continue
            try:
                self.seen += os.read(self.screen, 4096)
            except OSError:  # the program closed it
                assert text in self.seen, (text, self.seen[-2000:])
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def end(self, seconds=60):
        """The exit status."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if select.select([self.screen], [], [], 0.05)[0]:
                try:
                    self.seen += os.read(self.screen, 4096)
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = None
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("did not end")

    def close(self):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.screen)


@pytest.fixture
def chat(binary, root, dummy):
    opened = []

    def start(*arguments):
        opened.append(Terminal([binary, "chat", *dummy, *arguments], root))
        opened[-1].wait_for(b"/help lists the commands.\r\n> ")
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def test_reasoning_is_dimmed_and_can_be_switched(chat):
    terminal = chat("--think", "-n", "8")
    terminal.type(b"Hello\n")
    assert DIM in terminal.wait_for(RESET)
    assert b"8 tokens, " in terminal.wait_for(b" of prompt)]" + RESET)
    terminal.wait_for(PROMPT)
    terminal.type(b"/think\n")
    terminal.wait_for(b"reasoning is off\r\n> ")
    terminal.type(b"Hello\n")
    reply = terminal.wait_for(b"[8 tokens, ")  # the line of figures alone is dim
    assert reply.count(DIM) == 1 and reply.endswith(DIM + b"[8 tokens, ")
    terminal.wait_for(PROMPT)
    terminal.type(b"/quit\n")
    assert terminal.end() == 0


def test_interrupt_ends_the_reply_and_keeps_what_was_said(chat, tmp_path):
    terminal = chat("--think", "--temperature", "1", "--seed", "5")
    terminal.type(b"Hello\n")
    terminal.wait_for(DIM)
    terminal.type(b"\x03")
    terminal.wait_for(PROMPT)
    time.sleep(0.3)  # it must be reading again
    terminal.type(b"half a line\x03")  # at the prompt: a new line, and the program goes on
    terminal.wait_for(PROMPT)
    saved = tmp_path / "chat.json"
    terminal.type(b"/save %s\n" % bytes(saved))
    terminal.wait_for(b"2 messages in ")
    assert [m["role"] for m in json.loads(saved.read_text())] == ["user", "assistant"]
    terminal.type(b"/new\n")
    terminal.wait_for(PROMPT)
    terminal.type(b"/save %s\n" % bytes(saved))
    terminal.wait_for(b"0 messages in ")
    terminal.type(b"/quit\n")
    assert terminal.end() == 0


def test_a_mistake_is_told_and_the_talk_goes_on(chat):
    terminal = chat("-n", "4")
    terminal.type(b"/nonsense\n")
    terminal.wait_for(b"seacliff: /nonsense: no such command (/help)\r\n> ")
    terminal.type(b"/save /no/such/folder/x\n")
    terminal.wait_for(b"/no/such/folder/x: cannot be written\r\n> ")
    terminal.type(b"/help\n")
    terminal.wait_for(b"/save FILE")
    terminal.type(b"\x04")
    assert terminal.end() == 0
