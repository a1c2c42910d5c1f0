"""Measures Predictor on one image end to end, PNG bytes in and a decision out, and the memory of ``bnn predict``.

Latencies are of calls one after another, on one thread; the time that the thread had a CPU is beside that of the clock,
which counts others' work on a machine that they share. Memory is the largest resident set of a process of its own,
over folders of 28 x 28 PNG files that it writes.

    python benchmarks/predictor.py [--checkpoint FILE] [--calls 500] [--draws weights] [--memory 2000 20000]
"""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bnn_lightning import Predictor

LENET = Path(__file__).parent.parent / "checkpoints" / "lenet_lrt_mnist.ckpt"
PREDICT = """
import json, resource, sys
from bnn_lightning.cli import main
code = main(sys.argv[1:])
print(json.dumps({"code": code, "kB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def png(seed):
    """A picture of 28 x 28 grey levels as a file."""
    levels = np.random.default_rng(seed).integers(0, 256, (28, 28), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def latencies(predictor, calls):
    """Milliseconds of the clock and of the CPU of each call with a picture of its own; 50 before are not counted."""
    pictures = [png(seed) for seed in range(calls + 50)]
    seconds = []
    for picture in pictures:
        start, cpu_start = time.perf_counter(), time.thread_time()
        decision = predictor(picture)[0].accepted
        seconds.append((time.perf_counter() - start, time.thread_time() - cpu_start))
        assert decision in (True, False, None)  # None where the checkpoint is not calibrated for these draws
    return 1000 * np.array(seconds[50:]).T


def parts(predictor, calls):
    """Mean milliseconds of preparing a picture, of its outputs, and of what is said of them."""
    times = np.zeros((calls, 3))
    for call in range(calls):
        moments = [time.perf_counter()]
        (batch,) = predictor.preparation.batches(png(call), 1)
        moments.append(time.perf_counter())
        summary = predictor._summary(batch, 0)
        moments.append(time.perf_counter())
        predictor.likelihood.predictions(summary, predictor.class_names, predictor._thresholds)[0]
        moments.append(time.perf_counter())
        times[call] = 1000 * np.diff(moments)
    return dict(zip(("preparation", "samples", "predictions"), np.median(times, 0).round(3).tolist(), strict=True))


def memory(checkpoint, count, folder):
    """The largest resident set of ``bnn predict`` over ``count`` pictures, in MB, and its seconds."""
    root = Path(folder) / str(count)
    for index in range(count):
        place = root / f"{index // 1000}" / f"{index:06}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(png(index))
    words = ["predict", "--ckpt_path", str(checkpoint), "--data", "ImageFolder", "--data.root", str(root)]
    words += ["--output", str(Path(folder) / f"{count}.csv"), "--trainer.logger", "false"]
    words += [
        "--model.sampling.test_samples",
        "2",
    ]  # of which memory does not depend: a batch has at most `chunk` at once
    start = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", PREDICT, *words], capture_output=True, text=True, check=True, cwd=folder, env=os.environ
    )
    result = json.loads(run.stdout.splitlines()[-1])
    assert result["code"] == 0, run.stderr
    return {"pictures": count, "MB": round(result["kB"] / 1024, 1), "seconds": round(time.perf_counter() - start, 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default=LENET, type=Path)
    parser.add_argument("--calls", default=500, type=int)
    parser.add_argument("--samples", default=25, type=int)
    parser.add_argument("--draws", default=None)
    parser.add_argument("--memory", default=[], type=int, nargs="*", help="numbers of pictures")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, 1 thread")
    start = time.perf_counter()
    predictor = Predictor.load(settings.checkpoint, samples=settings.samples, draws=settings.draws)
    print(f"load {time.perf_counter() - start:.2f} s, {predictor.draws} draws, {settings.samples} samples")
    for name, times in zip(("clock", "CPU"), latencies(predictor, settings.calls), strict=True):
        quantiles = {f"p{level}": round(float(np.percentile(times, level)), 2) for level in (50, 95, 99)}
        print(
            f"one image, bytes to decision, ms of the {name}: {quantiles | {'fastest': round(float(times.min()), 2)}}"
        )
    print(f"its parts, median ms: {parts(predictor, settings.calls)}")
    with tempfile.TemporaryDirectory() as folder:
        for count in settings.memory:
            print(f"bnn predict: {memory(settings.checkpoint.resolve(), count, folder)}", flush=True)


if __name__ == "__main__":
    main()
