"""What IVON comes to beside the published package ivon-opt: the same LeNet, images, batches and number of steps.

    pip install ivon-opt
    python benchmarks/ivon_results.py --root data    # accuracy and NLL on the hold-out of MNIST, for several settings

Both have one weight sample in each step, the prior N(0, 0.3^2) and a rate that falls linearly to 0, and predict with
ten draws. The package has no warm-up, and its bound on the step is off, as by default; ours begins with He-normal
weights.
"""

import argparse
import time

import torch
import torch.nn.functional as F

from bnn_lightning import (
    BBB,
    IVONOptimizer,
    LeNet,
    bayesianize,
    keep_freed_memory,
    log_predictive,
    sample_logits,
    to_plain,
)
from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.data import MNIST

PRIOR_SIGMA, DRAWS = 0.3, 10


def he_normal():
    """The Bayesian LeNet, whose means begin as He et al. 2015 draw weights."""
    return bayesianize(LeNet(), BBB(prior_sigma=PRIOR_SIGMA, mu_init="he"))


class Ours:
    def __init__(self, num_train, steps, lr):
        self.net = he_normal().to(memory_format=torch.channels_last)
        self.optimizer = IVONOptimizer(self.net, num_train, steps, lr=lr)

    def step(self, x, y):
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(x), y).backward()
        self.optimizer.step()

    def logits(self, x):
        return sample_logits(self.net, x, samples=DRAWS)


class Package:
    def __init__(self, num_train, steps, lr, hess_init, he=False):
        from ivon import IVON

        net = to_plain(he_normal()) if he else LeNet()
        self.net = net.to(memory_format=torch.channels_last)
        self.optimizer = IVON(
            self.net.parameters(),
            lr=lr,
            ess=num_train,
            hess_init=hess_init,
            weight_decay=1 / (num_train * PRIOR_SIGMA**2),
        )

    def step(self, x, y):
        with self.optimizer.sampled_params(train=True):
            self.optimizer.zero_grad()
            F.cross_entropy(self.net(x), y).backward()
        self.optimizer.step()

    def logits(self, x):
        draws = []
        for _ in range(DRAWS):
            with self.optimizer.sampled_params():
                draws.append(self.net(x))
        return torch.stack(draws)


CANDIDATES = {
    "IVON, lr 0.1": (Ours, {"lr": 0.1}),
    "IVON, lr 0.2": (Ours, {"lr": 0.2}),
    "ivon-opt, lr 0.1, hess_init 0.1": (Package, {"lr": 0.1, "hess_init": 0.1}),
    "ivon-opt, lr 0.5, hess_init 0.1": (Package, {"lr": 0.5, "hess_init": 0.1}),
    "ivon-opt, lr 0.5, hess_init 1": (Package, {"lr": 0.5, "hess_init": 1.0}),
    "ivon-opt, lr 0.5, hess_init 0.1, He-normal": (Package, {"lr": 0.5, "hess_init": 0.1, "he": True}),
    "ivon-opt, lr 0.2, hess_init 0.1, He-normal": (Package, {"lr": 0.2, "hess_init": 0.1, "he": True}),
}


def train(build, settings, root, epochs, seed):
    """Accuracy and NLL of the hold-out, and seconds of training."""
    torch.manual_seed(seed)
    data = MNIST(root=root, image_size=32, batch_size=256, val_split=0.2, crop_padding=1)
    data.setup("fit")
    loader = data.train_dataloader()
    steps = epochs * len(loader)
    learner = build(data.num_train, steps, **settings)
    schedule = torch.optim.lr_scheduler.LambdaLR(learner.optimizer, lambda step: max(0.0, 1 - step / steps))
    start = time.perf_counter()
    for _ in range(epochs):
        for x, y in loader:
            learner.step(channels_last(x), y)
            schedule.step()
    seconds = time.perf_counter() - start
    learner.net.eval()
    nll = right = count = 0.0
    with torch.no_grad():
        for x, y in data.val_dataloader():
            log_probs = log_predictive(learner.logits(channels_last(x)))
            nll += F.nll_loss(log_probs, y, reduction="sum").item()
            right += (log_probs.argmax(-1) == y).sum().item()
            count += len(y)
    return right / count, nll / count, seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print(f"{arguments.epochs} epochs; accuracy and NLL on the selection half of the hold-out, by seed\n", flush=True)
    print("| training | accuracy, % | NLL | s |\n| --- | --- | --- | --- |", flush=True)
    for label, (build, settings) in CANDIDATES.items():
        rows = [train(build, settings, arguments.root, arguments.epochs, seed) for seed in range(arguments.seeds)]
        cells = (
            ", ".join(f"{100 * accuracy:.2f}" for accuracy, _, _ in rows),
            ", ".join(f"{nll:.4f}" for _, nll, _ in rows),
            f"{sum(seconds for _, _, seconds in rows) / len(rows):.0f}",
        )
        print(f"| {label} | {' | '.join(cells)} |", flush=True)
