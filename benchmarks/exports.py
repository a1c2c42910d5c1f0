"""Measures exports of the committed LeNet: bytes, onnxruntime beside torch, and what 8 bits cost, on MNIST test images.

Latencies are medians of rounds in which both take turns, of the time that the thread had a CPU, on one thread each.
Differences are the largest over all images. Accuracy and NLL are those of the probabilities in the file.

    python benchmarks/exports.py data [images, 10000 [moments mean samples:25]]
"""

import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from bnn_lightning import Onnx, Pt2, export_graph
from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.data import MNIST
from bnn_lightning.deployment.graph import predictive_graph

LENET = Path(__file__).parent.parent / "checkpoints" / "lenet_lrt_mnist.ckpt"
BATCHES = (1, 256)


def test_images(root, count):
    """uint8 ``(images, 1, 32, 32)`` and labels."""
    source = MNIST(root=root, image_size=32, normalize=False)
    source.setup("test")
    batches = [batch[:2] for batch in source.test_dataloader()]
    images, labels = (torch.cat(parts)[:count] for parts in zip(*batches, strict=True))
    return (255 * images).round().to(torch.uint8), labels


def session_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def outputs_of(call, images):
    parts = [call(part) for part in images.split(500)]
    return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


def milliseconds(calls, rounds=30):
    """The median of each call; they take turns."""
    times = {name: [] for name in calls}
    for number in range(rounds + 3):
        for name, call in calls.items():
            start = time.thread_time()
            call()
            if number >= 3:
                times[name].append(1000 * (time.thread_time() - start))
    return {name: sorted(each)[rounds // 2] for name, each in times.items()}


def main(root, count=10_000, *whats):
    torch.set_num_threads(1)
    record = Record.read(LENET)
    trained = Trained.of(record)
    images, labels = test_images(root, int(count))
    with tempfile.TemporaryDirectory() as folder:
        for what, file_format in (
            ("moments", Onnx()),
            ("moments", Onnx(quantize="int8")),
            ("mean", Onnx()),
            ("mean", Onnx(quantize="int8")),
            ("samples:25", Onnx()),
            ("moments", Pt2()),
            ("mean", Pt2()),
            ("samples:25", Pt2()),
        ):
            if whats and what not in whats:
                continue
            path = Path(folder) / f"net{file_format.ending}"
            start = time.perf_counter()
            export_graph(record, trained, what, path, file_format)
            print(
                f"{what} {file_format}: {path.stat().st_size:,} bytes, {time.perf_counter() - start:.0f} s", flush=True
            )
            if isinstance(file_format, Pt2):
                continue
            session, graph = session_of(path), predictive_graph(trained, record.data, what)
            names = [output.name for output in session.get_outputs()]

            def run(x, session=session, names=names):
                return dict(zip(names, session.run(names, {"pixels": x.numpy()}), strict=True))

            with torch.inference_mode():
                found, expected = outputs_of(run, images), outputs_of(graph, images)
                largest = {name: np.abs(found[name] - expected[name]).max() for name in names}
                print("  largest differences:", ", ".join(f"{name} {value:.1e}" for name, value in largest.items()))
                for who, outputs in (("onnxruntime", found), ("torch", expected)):
                    log_probs = outputs["log_probs"]
                    accuracy = (log_probs.argmax(-1) == labels.numpy()).mean()
                    nll = -log_probs[np.arange(len(labels)), labels.numpy()].mean()
                    print(f"  {who}: accuracy {100 * accuracy:.2f} %, NLL {nll:.4f}")
                for batch in BATCHES:
                    x = images[:batch]
                    times = milliseconds({"onnxruntime": partial(run, x), "torch": partial(graph, x)})
                    print(f"  batch {batch}:", ", ".join(f"{name} {value:.2f} ms" for name, value in times.items()))


if __name__ == "__main__":
    main(*sys.argv[1:])
