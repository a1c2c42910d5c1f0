"""Effect of parametrisation and KL ramp on learnt dropout rates: LeNet-300-100, 10,000 MNIST images, 12 epochs a run.

    python benchmarks/learnt_alpha.py [--root data]

Prints the table of docs/measurements.md: three methods, three parametrisations, the full KL at once or ramped.
"""

import argparse
import logging
import warnings

import torch
from lightning.pytorch import Trainer

from bnn_lightning import BayesianModule, HierarchicalB, LeNet300100, Sparse, Variational, VariationalB
from bnn_lightning.compression.sparsity import masks, overall_sparsity
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.data import MNIST
from bnn_lightning.inference.kl_weights import Constant, LinearWarmup


def accuracy(network, data):
    with torch.no_grad():
        batches = [(network(images).argmax(-1) == labels).float().mean() for images, labels in data.test_dataloader()]
    return torch.stack(batches).mean().item()


def run(method, kl_weight, root):
    torch.manual_seed(0)
    data = MNIST(root=root, train_subset=10_000, batch_size=100, val_split=0.0, normalize=False, image_size=28)
    model = BayesianModule(LeNet300100(), method, Variational(kl_weight=kl_weight))
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(max_epochs=12, accelerator="cpu", num_sanity_val_steps=0, **quiet).fit(model, data)
    data.setup("test")
    means, kept = to_plain(model.network), to_plain(model.network, masks(model.network))
    return model.summary, accuracy(means, data), accuracy(kept, data), overall_sparsity(model.network)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data", help="the folder of the data (default: data)")
    root = parser.parse_args().root
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    print("| method | learnt | KL | train nll | kl/N | mean weights | kept weights | sparsity |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in (HierarchicalB, Sparse, VariationalB):
        for parametrisation in ("log_alpha", "log_sigma2", "log_sigma"):
            for name, weight in (("full from step 0", Constant(1.0)), ("3 + 6 epoch ramp", LinearWarmup(3, 6))):
                summary, means, kept, sparsity = run(kind(parametrisation=parametrisation), weight, root)
                print(
                    f"| {kind.__name__} | {parametrisation} | {name} | {summary.nll:.3f} | {summary.kl_per_n:.3f} "
                    f"| {100 * means:.2f} % | {100 * kept:.2f} % | {100 * sparsity:.1f} % |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
