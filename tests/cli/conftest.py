"""The binary and the repository, as ctest names them in the environment."""

import contextlib
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(os.environ.get("SEACLIFF_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
BINARY = pathlib.Path(os.environ.get("SEACLIFF_BINARY", ROOT / "build/cpu/seacliff"))


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def binary():
    return BINARY


@pytest.fixture(scope="session")
def seacliff():
    """seacliff("show", "settings") -> the finished process, with its output as text."""
    def run(*arguments, stdin="", env=None):
        return subprocess.run([BINARY, *map(str, arguments)], input=stdin, text=True,
                              capture_output=True, cwd=ROOT, timeout=120,
                              env={**os.environ, **(env or {})})
    return run


# The demo model's config and tokenizer, with weights made up from a seed: no weights are needed.
DUMMY = ("models/tiny", "--load-format", "dummy")


@pytest.fixture(scope="session")
def dummy():
    return DUMMY


@pytest.fixture(scope="session")
def serving():
    """`with serving() as (process, port):` a server of the demo model with made-up weights."""
    @contextlib.contextmanager
    def run():
        process = subprocess.Popen([BINARY, "serve", *DUMMY, "--port", "0"], cwd=ROOT, text=True,
                                   stderr=subprocess.PIPE)
        try:
            for line in process.stderr:
                if found := re.search(r"serving .*http://[^:]*:(\d+)/", line):
                    yield process, int(found.group(1))
                    break
            else:
                pytest.fail("the server did not start")
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
    return run
