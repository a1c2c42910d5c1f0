"""Measures the one-pass predictive: its quality beside many draws, and its cost beside a plain forward pass.

Candidates take turns in one process. On one thread seconds are those that the thread computes, so that other programs
on the machine count little; on two they are the wall's. Ratios are medians over turns.

    python benchmarks/moments.py quality data 1000 best.ckpt moments mean weights:1000 local:1000
    python benchmarks/moments.py speed 1               # on one thread; 2 for two
"""

import sys
import time
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
from bnn_lightning.evaluation.metrics import as_ranks, detection_metrics

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
                f"{detection_metrics(*as_ranks(inside[key], other[key]))['auroc']:.3f}" if key in inside else "-"
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


def speed(threads: int) -> None:
    """Seconds and memory of a pass of images: plain, by moments, and by 25 weight draws."""
    keep_freed_memory()
    torch.set_num_threads(threads)
    clock = time.thread_time if threads == 1 else time.perf_counter
    print("| network, images | plain, ms | moments | moments, compiled loops | 25 weight draws | memory of moments |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, (make, channels) in NETWORKS.items():
        for batch in (1, 256):
            torch.manual_seed(0)
            x = channels_last(torch.randn(batch, channels, 32, 32))
            plain = make(in_channels=channels).eval().to(memory_format=torch.channels_last)
            net = bayesianize(plain, LRT())
            ways = {"plain": plain, "moments": Sampler(net, 25, "moments"), "weights": Sampler(net, 25, "weights")}
            for layer in bayesian_layers(net):
                layer.compiles = True
            ways["compiled"] = Sampler(net, 25, "moments")
            seconds = {way: [] for way in ways}
            turns = 30 if batch == 1 else 3
            with torch.no_grad():
                for turn in range(turns + 1):
                    for way, predict in ways.items():
                        start = clock()
                        predict(x)
                        if turn:  # the first one compiles, and draws weights that are kept
                            seconds[way].append(clock() - start)
            ratios = {
                way: median(a / b for a, b in zip(seconds[way], seconds["plain"], strict=True)) for way in seconds
            }
            memory = peak_of(ways["moments"], x) / peak_of(plain, x)
            row = [f"{1000 * median(seconds['plain']):.2f}"]
            row += [f"{ratios[way]:.2f}" for way in ("moments", "compiled", "weights")]
            print(f"| {name}, {batch} | {' | '.join(row)} | {memory:.2f} |", flush=True)


def peak_of(predict, x: torch.Tensor) -> int:
    """The largest amount of memory, in bytes, that a call holds at once."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        predict(x)
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
        speed(int(words[0]))
