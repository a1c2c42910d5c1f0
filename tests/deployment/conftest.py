"""Checkpoints that predictors are made of, the committed one and small ones; and a server of the committed one."""

import http.client
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnn_lightning.cli import main
from tests.helpers import LENET, ROOT, SMALL

LENET_CKPT = ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt"

ROWS = "colour,age,size,price\n" + "".join(
    f"{'red' if row % 3 else 'blue'},{row % 17},{(row * 7) % 23},{2 * (row % 17) + (row * 7) % 23 + row % 3}\n"
    for row in range(200)
)


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """A folder with two runs of a small network on digits, one of a table and one with noise on inputs."""
    folder = tmp_path_factory.mktemp("networks")
    small = ["--trainer.max_epochs", "1", "--data.batch_size", "64", *SMALL]
    table = ["--model.network", "TabularMLP", "--model.likelihood", "Gaussian", "--data", "Table"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("people.csv").write_text(ROWS)
        for seed in ("0", "1"):
            assert main(["fit", "--config", LENET, *small, "--seed_everything", seed, "--name", f"run{seed}"]) == 0
        words = ["--data.path", "people.csv", "--trainer.max_epochs", "3", "--name", "table"]
        assert main(["fit", *table, "--model.method", "LRT", *words]) == 0
        words = ["--model.method", "MCDropout", "--name", "dropout"]
        assert main(["fit", "--config", LENET, *small, *words]) == 0
    return folder / "checkpoints"


class Served:
    """``bnn serve`` in a process of its own, on a free port of this machine; ``with Served(words) as served:``."""

    def __init__(self, *words):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.command = [sys.executable, "-m", "bnn_lightning", "serve", "--port", str(self.port), *map(str, words)]

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        self.lines = []
        try:
            while not self.lines or not self.lines[-1].startswith("Serving at"):
                line = self.process.stdout.readline()
                assert line, "".join(self.lines)
                self.lines.append(line)
            self.wait_for_workers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        self.lines += self.process.communicate(timeout=60)[0].splitlines(keepends=True)

    def ask(self, path, body=None, content_type=None, method=None, headers=()):
        """The status of an answer, and its JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = dict(headers) | ({} if content_type is None else {"Content-Type": content_type})
        method = method or ("GET" if body is None else "POST")
        connection.request(method, path, body, headers, encode_chunked="Transfer-Encoding" in headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content)

    def workers(self):
        """The numbers of the processes that predict."""
        return [pid for pid in children(self.process.pid) if "spawn_main" in command_of(pid)]

    def wait_for_workers(self, seconds=120):
        end = time.monotonic() + seconds
        while (health := self.ask("/health")[1])["ready"] < health["workers"]:
            assert time.monotonic() < end, health
            time.sleep(0.2)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def children(pid):
    """Processes that ``pid`` has started and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="session")
def served():
    """A server of the committed LeNet with two workers and low limits."""
    pytest.importorskip("litserve")
    if not Path("/proc/self/stat").exists():
        pytest.skip("processes are looked up in /proc, which this system has not")
    with Served("--ckpt_path", LENET_CKPT, "--max_bytes", 300_000, "--max_examples", 30) as served:
        yield served
    assert served.process.returncode == 0, "".join(served.lines)
    assert "Traceback" not in "".join(served.lines)
