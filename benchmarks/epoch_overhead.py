"""What share of a training epoch is spent outside forward, backward and the optimiser's step.

Epochs through ``Trainer.fit`` (loader, logging, hooks; without validation) alternate with a bare loop over the same
batches, made beforehand, that does nothing but forward, backward and step.

    python benchmarks/epoch_overhead.py [--root data] [--epochs 5]
"""

import argparse
import logging
import platform
import statistics
import time

import torch
from lightning.pytorch import Callback, Trainer
from torch.nn.functional import cross_entropy

from bnn_lightning import LRT, BayesianClassifier, LeNet, kl, variational_loss
from bnn_lightning.data import MNIST


class Stopwatch(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seconds = time.perf_counter() - self.started


def bare_epoch(model, optimizer, batches):
    started = time.perf_counter()
    for x, labels in batches:
        loss = variational_loss(cross_entropy(model(x), labels), kl(model.network), 48_000)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=None)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    torch.manual_seed(0)
    data = MNIST(arguments.root, image_size=32)
    data.setup("fit")
    batches = list(data.train_dataloader())
    model = BayesianClassifier(LeNet(), LRT())
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    whole, bare = [], []
    for _ in range(arguments.epochs):
        watch = Stopwatch()
        trainer = Trainer(max_epochs=1, accelerator="cpu", limit_val_batches=0, callbacks=[watch], **quiet)
        trainer.fit(model, data)
        whole.append(watch.seconds)
        bare.append(bare_epoch(model, torch.optim.Adam(model.network.parameters(), fused=True), batches))
    shares = sorted(1 - inside / total for inside, total in zip(bare, whole, strict=True))
    print(f"LeNet LRT, {len(batches)} steps of 256, torch {torch.__version__}, {torch.get_num_threads()} threads,")
    print(f"{platform.machine()}: epoch {statistics.median(whole):.2f} s, bare {statistics.median(bare):.2f} s")
    print(f"outside forward, backward, step: median {100 * statistics.median(shares):.1f} %,", end=" ")
    print(f"range {100 * shares[0]:.1f} to {100 * shares[-1]:.1f} % over {len(shares)} pairs")


if __name__ == "__main__":
    main()
