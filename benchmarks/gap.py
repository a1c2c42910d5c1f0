"""Measures what methods know of a gap between two clusters of data: epistemic std in it, and inside the clusters.

python benchmarks/gap.py             # the table of docs/regression.md
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bnn_lightning import BBB, LRT, Ensemble, GaussianLikelihood, IVONOptimizer, Laplace, Sampler, bayesianize, kl

ROWS, NOISE, STEPS, WIDTH = 120, 0.1, 2500, 50
CLUSTERS = torch.cat([torch.linspace(-1.9, -1.1, 9), torch.linspace(1.1, 1.9, 9)]).unsqueeze(1)
GAP = torch.linspace(-0.6, 0.6, 13).unsqueeze(1)
LIKELIHOOD = GaussianLikelihood()


def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(ROWS, 1, generator=generator) + torch.tensor([-2.0, 1.0]).repeat_interleave(ROWS // 2).unsqueeze(1)
    return x, (2 * x).sin() + NOISE * torch.randn(ROWS, 1, generator=generator)


def network(depth: int) -> nn.Module:
    widths = [1, *[WIDTH] * depth]
    hidden = [part for pair in itertools.pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return LIKELIHOOD.prepare(nn.Sequential(*hidden, nn.Linear(WIDTH, 1)))


def descend(net: nn.Module, optimizer: torch.optim.Optimizer, kl_after: float | None) -> None:
    """Takes the steps with rates that fall to 0; the KL, where it is part of the loss, warms up over 30 % of them."""
    x, y = rows()
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for step in range(STEPS):
        loss = LIKELIHOOD.nll(net(x).unsqueeze(0), y)
        if kl_after is not None:
            loss = loss + min(1.0, step / STEPS / kl_after) * kl(net) / ROWS
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def deterministic(depth: int) -> nn.Module:
    net = network(depth)
    descend(net, torch.optim.Adam(net.parameters(), 0.01), None)
    return net


def lrt(depth: int) -> nn.Module:
    net = bayesianize(network(depth), LRT(prior_sigma=1.0, mu_init=None))
    descend(net, torch.optim.Adam(net.parameters(), 0.01), 0.3)
    return net


def ivon(depth: int) -> nn.Module:
    net = bayesianize(network(depth), BBB(prior_sigma=1.0, mu_init="he"))
    descend(net, IVONOptimizer(net, ROWS, STEPS, lr=0.1, plain_lr=0.01), None)
    return net


def laplace(depth: int) -> nn.Module:
    net = (inference := Laplace()).prepare(network(depth), None, "*")
    descend(net, torch.optim.Adam(net.parameters(), 0.01), None)
    inference.after_fit(net, [rows()], LIKELIHOOD)
    return net


def main() -> None:
    makers: list[tuple[str, Callable[[int], nn.Module], int]] = [
        ("LRT", lrt, 1),
        ("IVON", ivon, 1),
        ("five of LRT", lrt, 5),
        ("five of IVON", ivon, 5),
        ("Laplace, last layer", laplace, 1),
        ("five deterministic networks", deterministic, 5),
    ]
    for name, make, members in makers:
        for depth in (1, 2):
            torch.manual_seed(0)
            sampler = Sampler(Ensemble([make(depth) for _ in range(members)]), 200)
            gap, clusters = (LIKELIHOOD.summary(sampler(x))["epistemic"].mean().item() for x in (GAP, CLUSTERS))
            print(f"{name}, hidden layers {depth}: {gap:.3f} / {clusters:.3f} = {gap / clusters:.2g}", flush=True)


if __name__ == "__main__":
    main()
