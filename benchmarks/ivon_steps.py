"""Training steps of IVON beside those of BBB by Adam and of the published package ivon-opt, on the same networks.

    pip install ivon-opt
    python benchmarks/ivon_steps.py    # milliseconds a step, and what parameters, gradients and state take

Candidates take turns in one process, so that other load on the machine affects them equally; a ratio is the median over
turns, with quartiles, of a candidate's seconds divided by BBB's in the same turn.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

from bnn_lightning import BBB, IVONOptimizer, LeNet, ThreeConvThreeFC, bayesianize, keep_freed_memory, kl
from bnn_lightning.core.kernels.memory import channels_last

NUM_TRAIN, STEPS, BATCH = 48_000, 3_760, 256
NETWORKS = {"LeNet": LeNet, "3Conv3FC": ThreeConvThreeFC}


def bbb_by_adam(make):
    net = channels_last_weights(bayesianize(make(), BBB(prior_sigma=0.3)))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)

    def step(x, y):
        optimizer.zero_grad()
        (F.cross_entropy(net(x), y) + kl(net) / NUM_TRAIN).backward()
        optimizer.step()

    return step, net, optimizer


def ivon(make):
    net = channels_last_weights(bayesianize(make(), BBB(prior_sigma=0.3, mu_init="he")))
    optimizer = IVONOptimizer(net, NUM_TRAIN, STEPS)

    def step(x, y):
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step, net, optimizer


def published_ivon(make):
    from ivon import IVON

    net = channels_last_weights(make())
    optimizer = IVON(net.parameters(), lr=0.1, ess=NUM_TRAIN, hess_init=0.1, weight_decay=1 / (NUM_TRAIN * 0.3**2))

    def step(x, y):
        with optimizer.sampled_params(train=True):
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
        optimizer.step()

    return step, net, optimizer


CANDIDATES = {"BBB, Adam": bbb_by_adam, "IVON": ivon, "ivon-opt": published_ivon}


def channels_last_weights(net):
    return net.to(memory_format=torch.channels_last)


def held_bytes(net, optimizer):
    """Of parameters, their gradients, and the optimiser's state."""
    tensors = [*net.parameters(), *(parameter.grad for parameter in net.parameters() if parameter.grad is not None)]
    states = [*optimizer.state.values(), *optimizer.param_groups]  # the package keeps its own in the groups
    values = [value for state in states if isinstance(state, dict) for value in state.values()]
    tensors += [value for value in values if isinstance(value, torch.Tensor)]
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())


def turns(name, make, count, per_turn):
    candidates = {}
    for label, build in CANDIDATES.items():
        torch.manual_seed(0)
        try:
            candidates[label] = build(make)
        except ImportError as error:
            print(f"{label}: not measured, {error}")
    x, y = channels_last(torch.randn(BATCH, 1, 32, 32)), torch.randint(0, 10, (BATCH,))
    seconds = {label: [] for label in candidates}
    for turn in range(count + 1):
        for label, (step, _, _) in candidates.items():
            start = time.perf_counter()
            for _ in range(per_turn):
                step(x, y)
            if turn:  # the first warms up
                seconds[label].append((time.perf_counter() - start) / per_turn)
    for label, (_, net, optimizer) in candidates.items():
        ratios = [own / base for own, base in zip(seconds[label], seconds["BBB, Adam"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = 1000 * statistics.median(seconds[label])
        megabytes = held_bytes(net, optimizer) / 1e6
        print(f"| {name} | {label} | {milliseconds:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) | {megabytes:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    print("| network | step | ms | / BBB (quartiles) | MB held |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name, make in NETWORKS.items():
        turns(name, make, arguments.turns, 10 if name == "LeNet" else 3)
