"""Measures the share of a training epoch that is spent outside forward pass, backward pass and optimiser step.

Times are those of Lightning's profiler in one run of ``Trainer.fit``. The training step (with a few sums for the log),
the backward pass and the optimiser count as inside; the loader, hooks, logging and loops count as outside.

    python benchmarks/epoch_overhead.py [--root data] [--epochs 5]
"""

import argparse
import logging
import platform
import statistics

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import SimpleProfiler

from bnn_lightning import LRT, BayesianModule, LeNet
from bnn_lightning.data import MNIST

STEP = "[LightningModule]BayesianModule.optimizer_step"  # includes forward and backward
ZERO_GRAD = "[LightningModule]BayesianModule.optimizer_zero_grad"


def epoch(data):
    """Seconds of one epoch, and of its forward passes, backward passes and optimiser steps."""
    profiler = SimpleProfiler()
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=1, accelerator="cpu", limit_val_batches=0, profiler=profiler, **quiet)
    trainer.fit(BayesianModule(LeNet(), LRT()), data)
    seconds = {name: sum(durations) for name, durations in profiler.recorded_durations.items()}
    return seconds["run_training_epoch"], seconds[STEP] - seconds[ZERO_GRAD]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=None)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(0)
    data = MNIST(arguments.root, image_size=32)
    data.setup("fit")
    times = [epoch(data) for _ in range(arguments.epochs)]
    shares = sorted(100 * (1 - inside / total) for total, inside in times)
    machine = f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} threads"
    print(f"LeNet LRT, {data.num_train:,} images, batch 256, {machine}")
    print(f"epoch: median {statistics.median(total for total, _ in times):.2f} s of {len(times)}")
    print(f"outside: median {statistics.median(shares):.1f} %, range {shares[0]:.1f} to {shares[-1]:.1f} %")


if __name__ == "__main__":
    main()
