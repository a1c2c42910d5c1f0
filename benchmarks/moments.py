"""Measures the one-pass predictive: its quality beside many draws, and its cost beside a plain forward pass.

Candidates take turns in one process. On one thread seconds are those that the thread computes, so that other programs
on the machine count little; on two they are the wall's. Ratios are medians over turns.

    python benchmarks/moments.py quality data 1000     # the committed LeNet, 1,000 images of each set, 1,000 draws
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
    MomentNetwork,
    ResNet20,
    Sampler,
    ThreeConvThreeFC,
    bayesianize,
    keep_freed_memory,
    mean_field_probabilities,
)
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.whole_network import bayesian_layers
from bnn_lightning.data import MNIST, FashionMNIST, NotMNIST
from bnn_lightning.evaluation.metrics import as_ranks, detection_metrics

ROOT = Path(__file__).parent.parent
NETWORKS = {"LeNet": (LeNet, 1), "3Conv3FC": (ThreeConvThreeFC, 1), "ResNet-20": (ResNet20, 3)}


def quality(root: str, count: int) -> None:
    """Accuracy, NLL and AUROC of a trained LeNet by each way of predicting, on the same images."""
    model = BayesianModule.from_checkpoint(ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
    data = MNIST(root=root, image_size=32, ood=[NotMNIST(root=root), FashionMNIST(root=root)])
    data.prepare_data()
    data.setup("test")
    sets = {}
    for name, loader in zip(data.test_sets, data.test_dataloader(), strict=True):
        x, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
        chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:count]
        sets[name] = x[chosen], y[chosen]
    ways = [("moments", 1), ("mean", 1), ("weights", 25), ("local", 25), ("weights", 1000), ("local", 200)]
    print("| predictive | accuracy, % | NLL | notMNIST H, MI | Fashion-MNIST H, MI | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for draws, samples in ways:
        sampler, start = Sampler(model.network, samples, draws), time.thread_time()
        summaries = {
            name: [model.likelihood.summary(sampler(part, batch)) for batch, part in enumerate(x.split(250))]
            for name, (x, _) in sets.items()
        }
        seconds = time.thread_time() - start
        scores = {
            name: {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            for name, parts in summaries.items()
        }
        inside, *outside = (model.likelihood.ood_scores(summary) for summary in scores.values())
        test = next(iter(sets))
        metrics = model.likelihood.metrics(scores[test], sets[test][1])
        aurocs = [
            ", ".join(
                f"{detection_metrics(*as_ranks(inside[key], other[key]))['auroc']:.3f}"
                for key in ("entropy", "mutual_information")
            )
            for other in outside
        ]
        name = f"{samples} {draws}" if draws in ("weights", "local") else draws
        row = [name, f"{100 * metrics['accuracy']:.2f}", f"{metrics['nll']:.4f}", *aurocs, f"{seconds:.1f}"]
        print(f"| {' | '.join(row)} |", flush=True)
    mean, variance = MomentNetwork(model.network)(sets[test][0])
    probs = mean_field_probabilities(mean, variance)
    nll = -probs.gather(1, sets[test][1][:, None]).log().mean()
    print(f"moments by the mean-field softmax: NLL {nll:.4f}")


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
        quality(words[0], int(words[1]))
    else:
        speed(int(words[0]))
