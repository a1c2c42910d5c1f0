"""EpochSums: how far training has come in an epoch, what its steps have added up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from bnn_lightning.checkpoints.summary import TrainingSummary
from bnn_lightning.core.objective import elbo
from bnn_lightning.core.whole_network import Objective
from bnn_lightning.inference import Terms
from bnn_lightning.likelihoods import Likelihood


@dataclass
class EpochSums:
    """What the steps of an epoch have added up so far.

    Args:
        lr: the learning rate of the epoch.
        kl_weights: of each optimiser step, of which several batches may be parts.
        totals: of nll, score and KL, each times examples, and of examples; of one process, or of all.
        num_outputs: of the network; 0 before the first step.
    """

    lr: float
    kl_weights: list[float] = field(default_factory=list)
    totals: Tensor = field(default_factory=lambda: torch.zeros(4))
    num_outputs: int = 0

    @torch.no_grad()
    def add(self, terms: Terms, y: Tensor, likelihood: Likelihood, step: int) -> None:
        """The numbers of a batch of optimiser step ``step``, left on their device."""
        nll, score = terms.nll, likelihood.training_score(terms.outputs, y)
        means = torch.stack([nll, score.to(nll.dtype), terms.kl.to(nll.dtype), torch.ones_like(nll)])
        self.totals = self.totals.to(means.device) + len(y) * means
        if len(self.kl_weights) <= step:
            self.kl_weights.append(terms.kl_weight)
        self.num_outputs = terms.outputs.shape[-1]

    def means(self) -> tuple[float, float, float, float]:
        """Mean nll, score, KL and KL weight."""
        nll, score, divergence, _ = (self.totals / self.totals[-1]).tolist()
        return nll, score, divergence, sum(self.kl_weights) / len(self.kl_weights)

    def summary(
        self,
        epoch: int,
        num_train: int,
        likelihood: Likelihood,
        objective: Objective,
        sparsity: float | None,
        departures: Sequence[str] = (),
    ) -> TrainingSummary:
        """The summary of an epoch that is over, from the sums of all processes."""
        nll, score, divergence, weight = self.means()
        guess = likelihood.uninformed(self.num_outputs)
        return TrainingSummary(
            epoch=epoch,
            num_train=num_train,
            nll=nll,
            score=score,
            kl=divergence,
            kl_weight=weight,
            elbo_per_n=None if objective == "likelihood" else elbo(nll, divergence, num_train),
            uninformed_nll=guess.nll,
            uninformed_score=guess.score,
            is_bound=objective == "elbo",
            sparsity=sparsity,
            departures=tuple(departures),
        )

    def record(self) -> dict[str, Any]:
        """All of it in plain values."""
        return vars(self) | {"totals": self.totals.cpu()}

    @classmethod
    def from_records(cls, records: Sequence[dict[str, Any]], rank: int, processes: int) -> Self:
        """The sums that process ``rank`` goes on from: its own; where there were more or fewer, the first has all."""
        if len(records) == processes:
            return cls(**records[rank])
        totals = torch.stack([record["totals"] for record in records]).sum(0)
        return cls(**records[0] | {"totals": totals if rank == 0 else torch.zeros_like(totals)})
