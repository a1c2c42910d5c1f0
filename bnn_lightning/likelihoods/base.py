"""The contract of a likelihood: what a network's outputs mean, and what a label is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

Predictive = dict[str, Tensor]
"""What a network says about examples: tensors ``(batch, ...)`` by name."""


class Uninformed(NamedTuple):
    """What a prediction is worth that looks at no input."""

    nll: float
    """In nats an example. A posterior whose elbo/N is lower has not converged: the prior alone would do better."""
    score: float
    """Of :attr:`Likelihood.score`."""


class Likelihood(ABC):
    """p(y | outputs), and what is reported about it.

    Write a likelihood as a frozen dataclass of its settings with the abstract methods below. It then trains, is tested
    and predicts with every network, method and inference. The other methods add to the reports.

    Outputs of T samples are ``(samples, batch, outputs)``; they may be in half precision. y is what the data give as
    labels, ``(batch, ...)``.
    """

    score: ClassVar[str]
    """The name of what :meth:`example_score` is the mean of, such as accuracy: 1 is best."""

    headline: ClassVar[tuple[str, ...]] = ("nll",)
    """The metrics that are reported of corrupted images."""

    calibration_type: ClassVar[type | None] = None
    """The class of what :meth:`calibrate` gives; it has ``record()``, plain values that it can be made of again."""

    @abstractmethod
    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The expected negative log-likelihood: the mean over samples and examples of -log p(y | outputs), in nats."""

    @abstractmethod
    def predictive(self, outputs: Tensor) -> Predictive:
        """The mixture over samples, as :meth:`log_prob` and :meth:`metrics` need it."""

    @abstractmethod
    def log_prob(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """The logarithm of the predictive density of y, for each example: ``(batch,)``."""

    @abstractmethod
    def example_score(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """How good each prediction is, ``(batch,)``: 1 is best."""

    @abstractmethod
    def uninformed(self, num_outputs: int) -> Uninformed:
        """What guessing is worth."""

    def training_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean score of the samples, each by itself: a scalar."""
        scores = [self.example_score(self.predictive(sample.unsqueeze(0)), y) for sample in outputs]
        return torch.stack([score.float().mean() for score in scores]).mean()

    def summary(self, outputs: Tensor) -> Predictive:
        """All that the samples say about each example: :meth:`predictive` with uncertainties, for predict and test."""
        return self.predictive(outputs)

    def mixture(self, outputs: Tensor) -> Callable[[Tensor], Predictive]:
        """The predictive as a function of how often each sample counts, ``(samples,)``; by default each counts once."""
        return lambda counts: self.predictive(outputs.repeat_interleave(counts.long(), 0))

    def metrics(self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Any = None) -> dict[str, float]:
        """What test reports about predictions. With a calibration also metrics at it, named with ``_scaled``."""
        return {
            self.score: self.example_score(predictive, y).double().mean().item(),
            "nll": -self.log_prob(predictive, y).double().mean().item(),
        }

    def ood_scores(self, summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Numbers for each example, ``(batch,)``, that unfamiliar inputs should have more of; by default none."""
        return {}

    def calibrate(self, predictive: Mapping[str, Tensor], y: Tensor) -> Any:
        """What labelled examples of the calibration half of the hold-out say about predictions; None for nothing."""
        return None

    def decisions(
        self,
        summary: Mapping[str, Tensor],
        names: Sequence[str],
        class_names: Sequence[str],
        calibration: Any,
        target_risk: float,
        alpha: float,
    ) -> list[dict[str, Any]]:
        """A row for each example, for a table; here with every number of the summary that is one for each example.

        Args:
            summary: of the examples.
            names: what identifies each example to a person.
            class_names: of the labels, as far as they are known.
            calibration: of the way that the samples were drawn in, or None.
            target_risk: the error rate that accepted predictions are to have at most.
            alpha: how often a prediction set may miss the label.
        """
        columns = {key: values.flatten().tolist() for key, values in summary.items() if values[0].numel() == 1}
        return [
            {"file": name} | {key: float(f"{values[index]:.6g}") for key, values in columns.items()}
            for index, name in enumerate(names)
        ]

    def decision_rule(self, calibration: Any, target_risk: float, alpha: float) -> str:
        """The rules that :meth:`decisions` went by, in a sentence; empty where there are none."""
        return ""
