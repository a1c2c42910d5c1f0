"""How far training has come: what the steps of an epoch add up, and the summary of an epoch that is over."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

NOT_CONVERGED = "posterior not converged"


@dataclass
class EpochSums:
    """What the steps of an epoch have added up so far.

    Args:
        lr: the learning rate of the epoch.
        kl_weights: of each step.
        totals: of nll, accuracy and KL, each times examples, and of examples; of one process, or of all.
        num_classes: of the logits; 0 before the first step.
    """

    lr: float
    kl_weights: list[float] = field(default_factory=list)
    totals: Tensor = field(default_factory=lambda: torch.zeros(4))
    num_classes: int = 0

    @torch.no_grad()
    def add(self, nll: Tensor, logits: Tensor, labels: Tensor, divergence: Tensor, kl_weight: float) -> None:
        """A step's numbers, left on their device; ``logits`` are ``(samples, batch, classes)``."""
        accuracy = (logits.argmax(-1) == labels).float().mean()
        means = torch.stack([nll, accuracy, divergence.to(nll.dtype), torch.ones_like(nll)])
        self.totals = self.totals.to(means.device) + len(labels) * means
        self.kl_weights.append(kl_weight)
        self.num_classes = logits.shape[-1]

    def means(self) -> tuple[float, float, float, float]:
        """Mean nll, accuracy, KL and KL weight."""
        nll, accuracy, divergence, _ = (self.totals / self.totals[-1]).tolist()
        return nll, accuracy, divergence, sum(self.kl_weights) / len(self.kl_weights)

    def record(self) -> dict[str, Any]:
        """All of it in plain values."""
        return vars(self) | {"totals": self.totals.cpu()}

    @classmethod
    def of_records(cls, records: Sequence[dict[str, Any]], rank: int, processes: int) -> Self:
        """The sums that process ``rank`` goes on from: its own; where there were more or fewer, the first has all."""
        if len(records) == processes:
            return cls(**records[rank])
        totals = torch.stack([record["totals"] for record in records]).sum(0)
        return cls(**records[0] | {"totals": totals if rank == 0 else torch.zeros_like(totals)})


@dataclass(frozen=True)
class TrainingSummary:
    """How far a run had come: means over its last epoch, on training data, with one number for each quantity.

    ``elbo_per_n`` is at KL weight 1, whatever weight trained the network; None where there is no KL, as in a
    deterministic network and under dropout with a fixed rate. ``sparsity`` is the share of weights that can be removed;
    None where the method removes none.
    """

    epoch: int
    num_train: int
    num_classes: int
    nll: float
    accuracy: float
    kl: float
    kl_weight: float
    elbo_per_n: float | None
    is_bound: bool = True
    sparsity: float | None = None

    @property
    def kl_per_n(self) -> float | None:
        return None if self.elbo_per_n is None else self.kl / self.num_train

    @property
    def marks(self) -> list[str]:
        """What must stand beside every result of these weights."""
        marks = []
        if self.elbo_per_n is not None:
            if abs(self.kl_weight - 1) > 1e-6:
                marks.append("tempered")
            # The untrained prior predicts 1/K with no KL to pay: a posterior below that has not been found yet.
            if not self.elbo_per_n >= -math.log(self.num_classes):
                marks.append(NOT_CONVERGED)
            if not self.is_bound:
                marks.append("improper prior: elbo/N is no bound")
        if self.is_not_learning:
            marks.append("not learning")
        return marks

    @property
    def is_not_learning(self) -> bool:
        """Whether accuracy is below twice what guessing gives after two epochs, or half way from guessing to 1."""
        guessing = 1 / self.num_classes
        return self.epoch >= 1 and not self.accuracy >= min(2 * guessing, (1 + guessing) / 2)

    @property
    def has_collapsed(self) -> bool:
        """Whether the KL has erased the weights: nearly all can be removed, and the network is as good as guessing."""
        return self.sparsity is not None and self.sparsity > 0.99 and self.nll > 0.9 * math.log(self.num_classes)
