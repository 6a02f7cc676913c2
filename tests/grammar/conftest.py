"""What src/grammar allows, asked of grammar_oracle (--driver, or the newest in build/)."""

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(os.environ.get("SEACLIFF_SOURCE_DIR", pathlib.Path(__file__).parents[2]))


def pytest_addoption(parser):
    parser.addoption("--driver", help="path of grammar_oracle; default: the newest in build/")


class Oracle:
    def __init__(self, path):
        self.path = path

    def ask(self, requests, profile="preview"):
        """One answer for each request; what a request may hold stands in grammar_oracle.cc."""
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in requests)
        done = subprocess.run([self.path, ROOT / "models/tiny", profile], input=lines.encode(),
                              capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        lines = done.stdout.decode(errors="replace").rstrip("\n").split("\n")
        answers = [json.loads(line) for line in lines]
        assert len(answers) == len(requests)
        return answers

    def accepts(self, request, texts):
        (answer,) = self.ask([{**request, "accept": texts}])
        assert "error" not in answer, answer
        return answer["accepted"]


@pytest.fixture(scope="session")
def oracle(request):
    path = request.config.getoption("--driver")
    if path is None:
        found = [p for p in ROOT.glob("build/**/grammar_oracle") if p.is_file()]
        assert found, "no build/**/grammar_oracle: build the target grammar_oracle first"
        path = max(found, key=lambda p: p.stat().st_mtime)
    return Oracle(path)
