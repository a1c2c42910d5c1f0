"""Measures ``bnn serve`` on this machine: latency and requests a second, bad requests, and a worker that is killed.

The client is this process, of asyncio alone, with one connection for each client that is kept open and one request at a
time on it. Server and client share the cores of the machine, so that the client's work is in every number.

    python benchmarks/serving.py [--ckpt_path lenet_lrt_mnist] [--workers 2] [--requests 10000] [--malformed 500]
"""

import argparse
import asyncio
import base64
import io
import json
import os
import pickle
import platform
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

CLIENTS = (1, 8, 32)
HEADERS = "POST /predict HTTP/1.1\r\nHost: here\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"


def request(body, content_type="image/png"):
    return HEADERS.format(content_type, len(body)).encode() + body


def pictures(count=64):
    """Requests with a picture of 28 x 28 grey levels each."""
    rng, requests = np.random.default_rng(0), []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (28, 28), dtype=np.uint8)).save(file, "PNG")
        requests.append(request(file.getvalue()))
    return requests


def malformed():
    """Requests that must be refused."""
    good = pictures(1)[0].partition(b"\r\n\r\n")[2]
    bomb = io.BytesIO()
    Image.new("1", (9500, 9500)).save(bomb, "PNG")
    texts = ['{"images": []}', '{"image": "!"}', "[]", "{", '{"rows": [{}]}', '{"image": NaN}', '{"x": 1}', "[" * 9000]
    bodies = [json.dumps({"images": [base64.b64encode(good).decode(), "AAAA"]}), *texts]
    return [
        *(request(body, "image/png") for body in (b"", b"no picture", good[:60], pickle.dumps([1]), bomb.getvalue())),
        *(request(body.encode(), "application/json") for body in bodies),
        request(good, "text/plain"),
        request(good, "multipart/form-data"),
        request(good, "multipart/form-data; boundary=x"),
    ]


async def answer(reader, writer, content):
    """The status and the body of the answer to a request."""
    writer.write(content)
    await writer.drain()
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


async def load(port, clients, count, requests):
    """``count`` requests by so many clients: the seconds of each, their statuses, and the seconds of all."""
    seconds, statuses, rest = [], Counter(), iter(range(count))

    async def client():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in rest:
            start = time.perf_counter()
            status, _ = await answer(reader, writer, requests[number % len(requests)])
            seconds.append(time.perf_counter() - start)
            statuses[status] += 1
        writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return seconds, dict(statuses), time.perf_counter() - start


def measured(port, clients, count, requests):
    seconds, statuses, whole = asyncio.run(load(port, clients, count, requests))
    levels = {f"p{level}_ms": round(1000 * float(np.percentile(seconds, level)), 1) for level in (50, 99)}
    return {"clients": clients, "requests": count} | levels | {"a_second": round(count / whole), "statuses": statuses}


def workers_of(pid):
    """Processes that predict; of Linux alone."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if parent == pid and "spawn_main" in stat.with_name("cmdline").read_text():
                found.append(int(stat.parent.name))
        except OSError:
            continue
    return found


async def health(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    _, body = await answer(reader, writer, b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
    writer.close()
    return json.loads(body)


async def killed(port, pid, count, requests):
    """``count`` requests by 8 clients, while one worker is killed after a second; seconds until all are there again."""
    work = asyncio.create_task(load(port, 8, count, requests))
    await asyncio.sleep(1)
    os.kill(workers_of(pid)[0], signal.SIGKILL)
    start, back = time.perf_counter(), None
    await asyncio.sleep(0.6)
    while back is None:
        found = await health(port)
        back = time.perf_counter() - start if found["ready"] == found["workers"] else None
        await asyncio.sleep(0.2)
    seconds, statuses, _ = await work
    return {"requests": count, "statuses": statuses, "slowest_s": round(max(seconds), 2), "all_back_s": round(back, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt_path", default="lenet_lrt_mnist")
    parser.add_argument("--workers", default=2, type=int)
    parser.add_argument("--requests", default=10_000, type=int, help="of the longest run, with the most clients")
    parser.add_argument("--malformed", default=500, type=int)
    settings = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", "--ckpt_path", settings.ckpt_path, "--port", str(port), "--workers", str(settings.workers)]
    command = [sys.executable, "-m", "bnn_lightning", *words]
    print(
        f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores for server and client, load {os.getloadavg()[0]}"
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            start = time.perf_counter()
            while not server.stdout.readline().startswith("Serving"):
                assert server.poll() is None
            while asyncio.run(health(port))["ready"] < settings.workers:
                time.sleep(0.2)
            print(f"{settings.workers} workers are there after {time.perf_counter() - start:.1f} s", flush=True)
            good = pictures()
            measured(port, 8, 200, good)  # not counted
            for clients in CLIENTS:
                print(measured(port, clients, 300 * min(clients, 5), good), flush=True)
            print("the long run:", measured(port, CLIENTS[-1], settings.requests, good), flush=True)
            print("malformed:", measured(port, 4, settings.malformed, malformed()), flush=True)
            print("after them:", measured(port, 8, 100, good), flush=True)
            print("a worker is killed:", asyncio.run(killed(port, server.pid, 3000, good)), flush=True)
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
