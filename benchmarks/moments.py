"""Measures the one-pass predictive: its quality beside many draws, and its cost beside a plain forward pass.

Candidates take turns in one process. On one thread seconds are those that the thread computes, so that other programs
on the machine count little; on two they are the wall's. Ratios are medians over turns.

    python benchmarks/moments.py quality data 1000 best.ckpt moments mean weights:1000 local:1000
    python benchmarks/moments.py speed 1               # on one thread; 2 for two
"""

import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from bnn_lightning import (
    LRT,
    BayesianModule,
    LeNet,
    ResNet20,
    Sampler,
    ThreeConvThreeFC,
    bayesianize,
    keep_freed_memory,
)
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.data import CIFAR10, MNIST, FashionMNIST, NotMNIST
from bnn_lightning.evaluation.metrics import detection_metrics

NETWORKS = {"LeNet": (LeNet, 1), "3Conv3FC": (ThreeConvThreeFC, 1), "ResNet-20": (ResNet20, 3)}


def quality(root: str, count: int, path: str, *ways: str) -> None:
    """Accuracy, NLL, ECE and AUROC of a trained network by each way of predicting, on the same images.

    Args:
        root: of the data sets; for a network of colour images, of CIFAR-10 and notMNIST.
        count: random test images; of the other sets a quarter as many.
        path: of the checkpoint.
        ways: such as ``weights:1000``.
    """
    record = Record.read(Path(path))
    model = BayesianModule.from_checkpoint(path)
    outside = [NotMNIST(root=root), FashionMNIST(root=root)]
    is_colour = record.data["channels"] == 3
    data = CIFAR10(root=root, ood=outside) if is_colour else MNIST(root=root, ood=outside)
    data.prepare_like(record.data)
    data.prepare_data()
    data.setup("test")
    sets = {}
    for name, loader in zip(data.test_sets, data.test_dataloader(), strict=True):
        x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
        size = count // 4 if sets else count
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:size]
        sets[name] = x[chosen], y[chosen]
    print(f"{path}: {', '.join(f'{len(x)} of {name}' for name, (x, _) in sets.items())}")
    print("| predictive | accuracy, % | NLL | ECE | notMNIST H, MI | Fashion-MNIST H, MI | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    test, curves, log_likelihoods = next(iter(sets)), {}, {}
    for way in ways:
        draws, _, samples = way.partition(":")
        sampler, start = Sampler(model.network, int(samples or 1), draws), time.thread_time()
        summaries = {
            name: [model.likelihood.summary(sampler(part, batch)) for batch, part in enumerate(x.split(250))]
            for name, (x, _) in sets.items()
        }
        seconds = time.thread_time() - start
        scores = {
            name: {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            for name, parts in summaries.items()
        }
        inside, *others = (model.likelihood.ood_scores(summary) for summary in scores.values())
        metrics = model.likelihood.metrics(scores[test], sets[test][1])
        aurocs = [
            ", ".join(
                f"{detection_metrics(inside[key], other[key])['auroc']:.3f}" if key in inside else "-"
                for key in ("entropy", "mutual_information")
            )
            for other in others
        ]
        row = [way, f"{100 * metrics['accuracy']:.2f}", f"{metrics['nll']:.4f}", f"{metrics['ece']:.4f}", *aurocs]
        print(f"| {' | '.join([*row, f'{seconds:.1f}'])} |", flush=True)
        log_probs, labels = scores[test]["log_probs"], sets[test][1]
        log_likelihoods[way] = log_probs.gather(1, labels[:, None]).flatten()
        curves[way] = calibration_curve(log_probs.exp(), labels)
    first, *rest = log_likelihoods
    for way in rest:
        gain = log_likelihoods[way] - log_likelihoods[first]
        error = gain.std() / len(gain) ** 0.5
        print(f"NLL of {first} less that of {way}: {gain.mean():+.4f}, standard error of the images {error:.4f}")
    for way, curve in curves.items():
        print(f"{way}, (mean confidence: accuracy) of fifths: {curve}")


def calibration_curve(probs: torch.Tensor, labels: torch.Tensor) -> str:
    """Mean confidence and accuracy of each fifth of the images, the least confident ones first."""
    confidence, predicted = probs.max(-1)
    order = confidence.argsort()
    correct = (predicted == labels).double()
    parts = zip(confidence[order].chunk(5), correct[order].chunk(5), strict=True)
    return ", ".join(f"{sure.mean():.3f}: {right.mean():.3f}" for sure, right in parts)


def ways_of(name: str, batch: int) -> dict:
    """By name, ways of predicting images: plain passes in both memory formats, moments, 25 weight draws."""
    make, channels = NETWORKS[name]
    torch.manual_seed(0)
    x = torch.randn(batch, channels, 32, 32)
    twin = make(in_channels=channels).eval()
    net, compiled = bayesianize(twin, LRT()).eval(), bayesianize(twin, LRT()).eval()
    for layer in bayesian_layers(compiled):
        layer.compiles = True
    plain = make(in_channels=channels).eval().to(memory_format=torch.channels_last)
    images = channels_last(x)
    predictors = {
        "plain": plain,
        "moments": Sampler(net, 25, "moments"),
        "compiled": Sampler(compiled, 25, "moments"),
        "weights": Sampler(net, 25, "weights"),
    }
    return {"twin": partial(twin, x)} | {way: partial(each, images) for way, each in predictors.items()}


@torch.no_grad()
def take_turns(ways: dict, turns: int, threads: int) -> dict[str, list[float]]:
    """Seconds of each turn of each way; a first one, which compiles and draws weights that are kept, is left out."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    seconds = {way: [] for way in ways}
    for turn in range(turns + 1):
        for way, predict in ways.items():
            start = clock()
            predict()
            if turn:
                seconds[way].append(clock() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], way: str, base: str) -> float:
    return median(a / b for a, b in zip(seconds[way], seconds[base], strict=True))


def speed(threads: int, *names: str) -> None:
    """Seconds and memory of a pass of images: plain, by moments, and by 25 weight draws."""
    print("| network, images | plain, ms | moments | compiled loops | 25 weight draws | twin | over twin | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in names or NETWORKS:
        for batch in (1, 256):
            ways = ways_of(name, batch)
            seconds = take_turns(ways, 60 if batch == 1 else 3, threads)
            memory = peak_of(ways["moments"]) / peak_of(ways["plain"])
            row = [f"{1000 * median(seconds['plain']):.2f}"]
            row += [f"{ratio(seconds, way, 'plain'):.2f}" for way in ("moments", "compiled", "weights", "twin")]
            row += [f"{ratio(seconds, 'moments', 'twin'):.2f}", f"{memory:.2f}"]
            print(f"| {name}, {batch} | {' | '.join(row)} |", flush=True)


def peak_of(predict) -> int:
    """The largest amount of memory, in bytes, that a call holds at once."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        predict()
    held = largest = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            largest = max(largest, held)
    return largest


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "quality":
        quality(words[0], int(words[1]), *words[2:])
    else:
        keep_freed_memory()
        threads = int(words[0])
        torch.set_num_threads(threads)
        speed(threads, *words[1:])
