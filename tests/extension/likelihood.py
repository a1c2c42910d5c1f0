"""Poisson: the one output is the logarithm of a rate, a label is a count."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import poisson_nll_loss

from bnn_lightning import Likelihood, Predictive, Uninformed


def log_pmf(log_rate: Tensor, count: Tensor) -> Tensor:
    return count * log_rate - log_rate.exp() - torch.lgamma(count.float() + 1)


@dataclass(frozen=True)
class Poisson(Likelihood):
    """p(y | f) = Poisson(y; exp(f)).

    Args:
        typical: the rate that somebody would guess who looks at no input.
    """

    score = "closeness"
    headline = ("closeness", "nll")

    typical: float = 4.5

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        log_rates, counts = outputs.squeeze(-1).float(), y.float().expand(len(outputs), -1)
        return poisson_nll_loss(log_rates, counts) + torch.lgamma(counts + 1).mean()

    def predictive(self, outputs: Tensor) -> Predictive:
        return {"log_rates": outputs.squeeze(-1).float().T}  # (batch, samples)

    def summary(self, outputs: Tensor) -> Predictive:
        predictive = self.predictive(outputs)
        rates = predictive["log_rates"].exp()
        variance = rates.var(1, correction=0)
        return predictive | {"mean": rates.mean(1), "aleatoric": rates.mean(1), "epistemic": variance}

    def log_prob(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        log_rates = predictive["log_rates"]
        samples = torch.tensor(log_rates.shape[1], device=log_rates.device)
        return log_pmf(log_rates, y.unsqueeze(1)).logsumexp(1) - samples.log()

    def example_score(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        return 1 / (1 + (predictive["log_rates"].exp().mean(1) - y).abs())

    def uninformed(self, num_outputs: int) -> Uninformed:
        counts = torch.arange(100.0)
        log_probs = log_pmf(torch.tensor(self.typical).log(), counts)
        score = (log_probs.exp() / (1 + (self.typical - counts).abs())).sum()
        return Uninformed(-(log_probs.exp() * log_probs).sum().item(), score.item())

    def ood_scores(self, summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"epistemic": summary["epistemic"]}
