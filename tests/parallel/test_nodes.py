"""A model on several hosts: processes that find each other over TCP, on loopback and (slow) across
network namespaces, and what happens when one of them dies or hangs."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request

import numpy
import pytest
from safetensors.numpy import load_file

ROOT = pathlib.Path(os.environ.get("SEACLIFF_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
BINARY = pathlib.Path(os.environ.get("SEACLIFF_BINARY", ROOT / "build/cpu/seacliff"))


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """The demo model's tokenizer, and its config made so large that four ranks can share it."""
    folder = tmp_path_factory.mktemp("model")
    config = json.loads((ROOT / "models/tiny/config.json").read_text())
    config.update(moe_intermediate_size=512, o_lora_rank=128)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"]:
        shutil.copy(ROOT / "models/tiny" / name, folder / name)
    return folder


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def processes():
    """start(prefix, arguments...) -> a process; all that still run are ended at the end."""
    running = []

    def start(*arguments, prefix=()):
        running.append(subprocess.Popen([*prefix, BINARY, *map(str, arguments)], cwd=ROOT, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return running[-1]

    try:
        yield start
    finally:
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.communicate()


def logits(model, folder, prompt):
    ids = folder / "ids"
    ids.write_text(" ".join(str(i * 37 % 4096) for i in range(prompt)))
    return ["logits", model, "--load-format", "dummy", "--numerics", "exact", "--device", "cpu",
            "--ids-file", ids, "--prefill", prompt - 4, "--chunk", 30]


def nodes(arguments, address, ranks, count, start, prefixes=None, out=None):
    """One process a node, node 0 first."""
    shared = [*arguments, "--tensor-parallel-size", ranks, "--nnodes", count, "--rendezvous", address]
    return [start(*shared, "--node-rank", n, *(["--out", out / f"node{n}"] if out else []),
                  prefix=prefixes[n] if prefixes else ())
            for n in range(count)]


def check_logits(model, folder, address, ranks, count, prefixes=None):
    arguments = logits(model, folder, 60)
    with processes() as start:
        one = start(*arguments, "--out", folder / "one")
        assert one.wait(120) == 0, one.stderr.read()
        together = nodes(arguments, address, ranks, count, start, prefixes, folder)
        for process in together:
            assert process.wait(120) == 0, process.stderr.read()
    want, got = load_file(folder / "one")["logits"], load_file(folder / "node0")["logits"]
    assert numpy.linalg.norm(want - got) < 1e-4 * numpy.linalg.norm(want)


@pytest.mark.parametrize("ranks, count", [(2, 2), (4, 2)])
def test_nodes_compute_what_one_does(model, tmp_path, ranks, count):
    check_logits(model, tmp_path, f"127.0.0.1:{free_port()}", ranks, count)


def test_nodes_must_be_started_alike(model, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    with processes() as start:
        shared = ["logits", model, "--load-format", "dummy", "--device", "cpu", "--ids-file",
                  tmp_path / "ids", "--tensor-parallel-size", 2, "--nnodes", 2, "--rendezvous", address]
        (tmp_path / "ids").write_text("1 2 3")
        pair = [start(*shared, "--node-rank", n, "--seed", n, "--out", tmp_path / "out")
                for n in range(2)]
        for process in pair:
            assert process.wait(60) == 1
            assert 'node 1 was started with "seed 1", node 0 with "seed 0"' in process.stderr.read()
        lonely = start(*shared[:-1], "nowhere", "--out", tmp_path / "out")
        assert lonely.wait(60) == 1
        assert "HOST:PORT" in lonely.stderr.read()


class Server:
    """A server of two nodes, busy with a long answer."""

    def __init__(self, model, start):
        self.port = free_port()
        # Stopped processes count as hung after this; nothing that works takes so long.
        shared = ["serve", model, "--load-format", "dummy", "--device", "cpu", "--threads", 1,
                  "--max-model-len", 2048, "--rank-timeout", 3, "--port", self.port]
        self.nodes = nodes(shared, f"127.0.0.1:{free_port()}", 2, 2, start)
        self.wait_until_ready()

    def request(self, path, body=None, timeout=60):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data,
                                         {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=timeout)

    def wait_until_ready(self):
        for _ in range(600):
            with contextlib.suppress(OSError):
                if self.request("/health").status == 200:
                    return
            assert all(n.poll() is None for n in self.nodes), self.nodes[0].stderr.read()
            time.sleep(0.1)
        raise AssertionError("the server does not get ready")

    def begin_answer(self):
        answer = self.request("/v1/completions", {"prompt": "Once", "max_tokens": 1900, "stream": True,
                                                  "ignore_eos": True})
        for _ in range(4):
            answer.readline()
        return answer


def ends(process, seconds):
    """Its exit status and what it said, within `seconds`."""
    begin = time.monotonic()
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - begin < seconds
    return process.returncode, said


@pytest.mark.parametrize("busy", [True, False])
def test_a_node_that_dies_ends_the_server(model, busy):
    with processes() as start:
        server = Server(model, start)
        answer = server.begin_answer() if busy else None
        server.nodes[1].kill()
        status, said = ends(server.nodes[0], 10)
        assert status == 3 and "rank 1 of 2: the connection was closed" in said, said
        if busy:
            assert b"error" in answer.read()


def test_a_node_that_hangs_ends_the_server(model):
    with processes() as start:
        server = Server(model, start)
        server.begin_answer()
        server.nodes[1].send_signal(signal.SIGSTOP)
        status, said = ends(server.nodes[0], 15)
        assert status == 3 and "rank 1 of 2: nothing came within 3000 ms" in said, said


def test_followers_end_with_node_0(model):
    with processes() as start:
        server = Server(model, start)
        assert json.load(server.request("/v1/completions", {"prompt": "Once", "max_tokens": 8}))
        server.nodes[0].terminate()
        assert ends(server.nodes[0], 20)[0] == 0
        assert ends(server.nodes[1], 10)[0] == 0
        server = Server(model, start)
        server.begin_answer()
        server.nodes[0].kill()
        status, said = ends(server.nodes[1], 10)
        assert status == 3 and ("node 0 is gone" in said or "rank 0 of 2" in said), said


@pytest.fixture
def namespaces():
    """Two network namespaces with a cable between them."""
    names = [f"seacliff{os.getpid()}{side}" for side in "ab"]

    def ip(*arguments):
        return subprocess.run(["ip", *arguments], capture_output=True, text=True)

    try:
        for name in names:
            made = ip("netns", "add", name)
            if made.returncode != 0:
                pytest.skip(f"ip netns is not allowed here: {made.stderr.strip()}")
        cable = ip("link", "add", "va", "netns", names[0], "type", "veth", "peer", "name", "vb",
                   "netns", names[1])
        if cable.returncode != 0:
            pytest.skip(f"ip link is not allowed here: {cable.stderr.strip()}")
        for name, end, address in zip(names, ["va", "vb"], ["10.77.0.1/24", "10.77.0.2/24"]):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", address, "dev", end)
            ip("-n", name, "link", "set", end, "up")
        yield names
    except FileNotFoundError:
        pytest.skip("there is no ip here")
    finally:
        with contextlib.suppress(FileNotFoundError):
            for name in names:
                ip("netns", "del", name)


@pytest.mark.slow
def test_nodes_in_network_namespaces(model, tmp_path, namespaces):
    prefixes = [("ip", "netns", "exec", name) for name in namespaces]
    check_logits(model, tmp_path, "10.77.0.1:7000", 4, 2, prefixes)


@pytest.mark.slow
def test_a_cable_that_is_cut_ends_all(model, tmp_path, namespaces):
    prefixes = [("ip", "netns", "exec", name) for name in namespaces]
    (tmp_path / "ids").write_text(" ".join(["5"] * 3000))
    arguments = ["logits", model, "--load-format", "dummy", "--device", "cpu", "--ids-file",
                 tmp_path / "ids", "--prefill", 1, "--rank-timeout", 5]
    with processes() as start:
        pair = nodes(arguments, "10.77.0.1:7000", 2, 2, start, prefixes, tmp_path)
        time.sleep(5)
        assert all(process.poll() is None for process in pair), "it ended too early"
        subprocess.run(["ip", "-n", namespaces[0], "link", "set", "va", "down"], check=True)
        for process in pair:
            status, said = ends(process, 20)
            assert status == 3, said
