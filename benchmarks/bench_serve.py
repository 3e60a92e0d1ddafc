"""Throughput and latency of `xacle-stack serve` on the loopback, with and without batches."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
from report import report

from xacle_stack import Scorer
from xacle_stack.pairs import Pairs, read_pairs
from xacle_stack.synth.demo import write_demo

CLIENTS, BATCHES = (1, 8, 32), (32, 1)
REQUESTS, MAX_SECONDS = 300, 10
HEADER = ["max_batch", "clients", "requests", "other answers", "requests a second"]
HEADER += ["p50 (ms)", "p95 (ms)", "p99 (ms)"]


def served(model: Path, max_batch: int) -> tuple[subprocess.Popen[bytes], int]:
    """Start the service and return its process and port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "from xacle_stack.cli import main; main()"
    options = ["--port", str(port), "--max-batch", str(max_batch), "--device", "cpu"]
    command = [sys.executable, "-c", code, "serve", str(model), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=30).close()
        except OSError:
            time.sleep(0.1)
        else:
            return process, port
    raise SystemExit("the service did not start")


def bodies(pairs: Pairs) -> list[bytes]:
    """Return a request for each pair."""
    return [
        json.dumps(
            {"items": [{"audio": base64.b64encode(path.read_bytes()).decode(), "text": text}]}
        ).encode()
        for path, text in zip(pairs.audio, pairs.captions, strict=True)
        if isinstance(path, Path)
    ]


def load(port: int, requests: list[bytes], n_clients: int) -> list[object]:
    """Send requests from several clients and return their figures."""
    todo = iter(range(REQUESTS))
    lock, end = threading.Lock(), time.perf_counter() + MAX_SECONDS

    def client(_: int) -> list[tuple[int, float]]:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        done = []
        while time.perf_counter() < end:
            with lock:
                number = next(todo, None)
            if number is None:
                break
            start = time.perf_counter()
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/score", requests[number % len(requests)], headers)
            answer = connection.getresponse()
            answer.read()
            done.append((answer.status, 1000 * (time.perf_counter() - start)))
        connection.close()
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(n_clients) as pool:
        answers = [one for done in pool.map(client, range(n_clients)) for one in done]
    seconds = time.perf_counter() - start
    good = [latency for status, latency in answers if status == 200]
    quantiles = np.quantile(good, [0.5, 0.95, 0.99]).tolist()
    return [n_clients, len(answers), len(answers) - len(good), len(good) / seconds, *quantiles]


def main() -> None:
    """Run it."""
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "demo"
        write_demo(data, seed=0, n_jobs=-1)
        scorer = Scorer("mini", store=Path(folder) / "store", device="cpu", n_jobs=-1)
        model = scorer.fit(read_pairs(data, "train")).save(Path(folder) / "model")
        requests = bodies(read_pairs(data, "test"))
        for max_batch in BATCHES:
            process, port = served(model, max_batch)
            try:
                load(port, requests[:20], 1)  # warm
                rows += [[max_batch, *load(port, requests, n)] for n in CLIENTS]
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait()
    title = f"xacle-stack serve, mini on the demo, clients beside it on {os.cpu_count()} cores"
    report("serve", title, HEADER, rows)


if __name__ == "__main__":
    main()
