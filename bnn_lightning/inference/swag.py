"""SWAG: the Gaussian that the last part of SGD's path has, over all weights."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from bnn_lightning.core.conversion import bayesianize
from bnn_lightning.core.methods import DrawnTogether, Method
from bnn_lightning.core.ops.base import Op
from bnn_lightning.core.posteriors import Joint, PathGaussian, Posterior
from bnn_lightning.core.running_statistics import recompute_running_statistics
from bnn_lightning.core.selection import candidates
from bnn_lightning.core.settings import check_not_negative, check_positive, check_share
from bnn_lightning.core.whole_network import bayesian_layers, random_tensors, sampling
from bnn_lightning.inference.base import Inference, Step, Terms, TrainingFacts, mean_weight_terms
from bnn_lightning.likelihoods.base import Likelihood

_DECAYS_FROM, _DECAYS_TO = 0.5, 0.9  # of the steps before the collection, as in the code of Maddox et al.


@dataclass(frozen=True)
class SWAG(Inference):
    """Trains a deterministic network by SGD with momentum, and takes the Gaussian of the last part of its path.

    Maddox et al. 2019 (arXiv:1902.02476). The rate is lr for half of the steps before that part, falls linearly to
    swa_lr at nine tenths of them, and stays there while weights are collected. At the end of the run the mean of what
    was collected becomes the mean weights, and running statistics of batch norm are computed anew at the mean weights,
    over one pass of the training batches: one set of statistics for all draws, not one for each. The posterior is over
    all layers that ``only`` matches, and norm layers with them; other weights are averaged, and not random.

    Args:
        lr: the learning rate at the beginning.
        swa_lr: the learning rate while weights are collected: as large as training bears, or draws are all alike.
        momentum: of SGD.
        weight_decay: of all parameters, as in the paper: it is the prior.
        collect_after: the fraction of the run's steps after which weights are collected.
        rank: K, how many of the last weights give the covariance its directions.
        collections_per_epoch: how often weights are collected, at most after every step. In a short run several are
            needed for K.
        scale: by which the covariance is multiplied; 1 is the published posterior, 0 the mean alone.
        max_gigabytes: of memory that what is collected may take.
    """

    brings_method = True
    fixed_in_a_run = ("lr", "swa_lr", "momentum", "weight_decay", "collect_after", "rank", "collections_per_epoch")

    lr: float = 0.05
    swa_lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    collect_after: float = 0.5
    rank: int = 20
    collections_per_epoch: int = 1
    scale: float = 1.0
    max_gigabytes: float = 4.0

    def __post_init__(self) -> None:
        for name in ("lr", "swa_lr", "max_gigabytes"):
            check_positive(name, getattr(self, name))
        for name in ("weight_decay", "scale"):
            check_not_negative(name, getattr(self, name))
        for name in ("momentum", "collect_after"):
            check_share(name, getattr(self, name))
        for name, smallest in (("rank", 2), ("collections_per_epoch", 1)):
            if getattr(self, name) < smallest:
                raise ValueError(f"{name} must be {smallest} or more, got {getattr(self, name)}.")

    def prepare(self, net: nn.Module, method: Method | None, only: str | list[str]) -> nn.Module:
        if method is not None:
            raise ValueError(f"method must be null for SWAG, which brings its own, got {type(method).__name__}.")
        patterns = [only] if isinstance(only, str) else list(only)
        if "*" in patterns:
            patterns += sorted({type(norm).__name__ for norm in candidates(net)[1]})
        self._check_memory(sum(parameter.numel() for parameter in net.parameters()))
        net = bayesianize(net, _SWAG(self.rank), patterns)
        random = {id(parameter) for layer in bayesian_layers(net) for parameter in layer.parameters()}
        others = {name: value for name, value in net.named_parameters() if id(value) not in random}
        # In a random layer, so that the names of the plain network's tensors are what they were.
        bayesian_layers(net)[0].averages = Averages({name: each for name, each in others.items() if each.requires_grad})
        return net

    def _check_memory(self, numbers: int) -> None:
        gigabytes = 4e-9 * numbers
        if (self.rank + 2) * gigabytes > self.max_gigabytes:
            fitting = int(self.max_gigabytes / gigabytes) - 2
            cure = f"{fitting} would fit" if fitting >= 2 else "not even 2 would fit"
            raise ValueError(
                f"rank must be one for which {numbers:,} weights take at most max_gigabytes, {self.max_gigabytes:g}, "
                f"got {self.rank}, which takes {(self.rank + 2) * gigabytes:.2g}; {cure}."
            )

    def make_optimizer(self, net: nn.Module, facts: TrainingFacts) -> Optimizer:
        trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
        if not trained:
            raise ValueError("network must have parameters to train, got one whose parameters are all frozen.")
        fused = True if facts.can_fuse else None
        return SGD(trained, self.lr, self.momentum, weight_decay=self.weight_decay, fused=fused)

    def start(self, optimizer: Optimizer, steps: int) -> None:
        optimizer.param_groups[0]["steps"] = steps  # of this run, which may be longer than when it began

    def make_scheduler(self, optimizer: Optimizer, epochs: int) -> dict[str, Any]:
        def factor(step: int) -> float:
            steps = optimizer.param_groups[0].get("steps")
            return 1.0 if steps is None else self.rate(step, steps) / self.lr

        return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of ``step`` (from 0) of a run of ``steps``."""
        first = round(self.collect_after * steps)
        progress = (step / first - _DECAYS_FROM) / (_DECAYS_TO - _DECAYS_FROM) if step < first else 1.0
        return self.lr + (self.swa_lr - self.lr) * min(max(progress, 0.0), 1.0)

    def loss(self, net: nn.Module, x: Tensor, y: Tensor, likelihood: Likelihood, step: Step) -> Terms:
        # What the steps before this one have led to: the weights after the last one are collected by after_fit.
        done, steps = step.epoch * step.steps + step.step, step.epochs * step.steps
        first = round(self.collect_after * steps)
        in_epoch = min(self.collections_per_epoch, step.steps)
        number = (done - first) * in_epoch // step.steps
        if done == 0:
            self._check_number(1 + (steps - 1 - first) * in_epoch // step.steps, steps - first)
        if step.step == 0 and _averages(net).first != first:  # the posterior of a shorter run is not of these weights
            _restart(net)
        if number > max(0, (done - 1 - first) * in_epoch // step.steps):
            _collect(net, number, first)
        return mean_weight_terms(net, x, y, likelihood)

    def _check_number(self, number: int, steps: int) -> None:
        """Refuses a run that collects ``number`` weights in ``steps`` steps, where several could be."""
        if number < 2 <= steps:
            raise ValueError(
                f"collections_per_epoch must be so high that 2 or more weights are collected in the last {steps} steps "
                f"of the run, got {self.collections_per_epoch}, with which it is {number}."
            )

    @torch.no_grad()
    def after_fit(self, net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], likelihood: Likelihood) -> None:
        averages = _averages(net)
        if averages.first < 0:
            _restart(net)
        _take_in(net)
        for part in _parts(net):
            part.form(self.scale)
        averages.put_into(net)
        averages.first.fill_(-1)
        with sampling(net, False):
            recompute_running_statistics(net, batches)


def _parts(net: nn.Module) -> list[PathGaussian]:
    return [part for _, part in random_tensors(net) if isinstance(part, PathGaussian)]


def _averages(net: nn.Module) -> "Averages":
    return next(module for module in net.modules() if isinstance(module, Averages))


def _collect(net: nn.Module, number: int, first: int) -> None:
    """Takes the weights in as those of that number, from 1, unless they have been.

    Several batches of one step come here with the same weights. A collection that another run has ended, or that began
    after another number of steps than ``first``, as of a run that is longer by now, is forgotten.
    """
    averages = _averages(net)
    if averages.first != first:
        _restart(net)
        averages.first.fill_(first)
    if averages.last < number:
        _take_in(net)
        averages.last.fill_(number)


def _take_in(net: nn.Module) -> None:
    for part in _parts(net):
        part.collect()
    _averages(net).collect(net)


def _restart(net: nn.Module) -> None:
    for part in _parts(net):
        part.restart()
    _averages(net).restart()


class Averages(nn.Module):
    """The mean over what was collected of parameters that are not random, and where the collection has come to.

    Args:
        parameters: by their names in the network.
    """

    collected: Tensor
    first: Tensor
    """The step after which this collection began; -1 before it has, and once it is a posterior."""
    last: Tensor
    """The number of the last one."""

    def __init__(self, parameters: dict[str, Tensor]):
        super().__init__()
        self.names = tuple(parameters)
        for name, number in (("collected", 0), ("first", -1), ("last", 0)):
            self.register_buffer(name, torch.tensor(number))
        for index, value in enumerate(parameters.values()):
            self.register_buffer(f"average_{index}", torch.zeros_like(value))

    def _pairs(self, net: nn.Module) -> list[tuple[Tensor, Tensor]]:
        return [(net.get_parameter(name), self.get_buffer(f"average_{i}")) for i, name in enumerate(self.names)]

    @torch.no_grad()
    def collect(self, net: nn.Module) -> None:
        self.collected += 1
        for parameter, average in self._pairs(net):
            average += (parameter - average) / self.collected

    def restart(self) -> None:
        for buffer in self.buffers():
            buffer.zero_()

    @torch.no_grad()
    def put_into(self, net: nn.Module) -> None:
        """Gives the parameters their means."""
        for parameter, average in self._pairs(net):
            parameter.copy_(average)


@dataclass(frozen=True)
class _SWAG(DrawnTogether):
    """The method of the layers, whose posterior :class:`SWAG` collects.

    Args:
        rank: of the covariance's low-rank part.
        joint: of all tensors.
    """

    objective = "likelihood"

    rank: int
    joint: Joint = field(default_factory=Joint, repr=False, compare=False)

    def weight(self, init: Tensor, op: Op) -> Posterior:
        return self.bias(init)

    def bias(self, init: Tensor) -> Posterior:
        return PathGaussian(init.detach().clone(), self.joint, self.rank)
