"""The contract of a likelihood: what the outputs of a network mean, and what a label is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnn_lightning.likelihoods.predictions import Predictions, Summaries, as_array, names_array

Predictive = dict[str, Tensor]
"""Results for a batch of examples, such as log-probabilities: tensors ``(batch, ...)`` by name."""


class Uninformed(NamedTuple):
    """The nll and the score of the best prediction that ignores the input."""

    nll: float
    """In nats per example. A posterior whose elbo/N is below minus this has not converged: the untrained prior, which
    has no KL, would be better."""
    score: float
    """The mean of :meth:`Likelihood.example_score`."""


class Likelihood(ABC):
    """p(y | outputs), and what is reported about predictions.

    Write a likelihood as a frozen dataclass of its settings with ``score`` and the abstract methods below. It then
    works with every network, method and inference, in training, test and predict. The other methods add to the reports.

    Outputs of several samples are ``(samples, batch, outputs)``, possibly in half precision; labels y are
    ``(batch, ...)``, as the data module gives them.
    """

    score: ClassVar[str]
    """The name of the mean of :meth:`example_score`, such as accuracy."""

    label_kind: ClassVar[Literal["classes", "numbers"] | None] = None
    """What a label is; the command line refuses data whose labels are of the other kind. None takes any."""

    headline: ClassVar[tuple[str, ...]] = ("nll",)
    """Names of the metrics that are reported for corrupted images."""

    calibration_type: ClassVar[type | None] = None
    """The class of the result of :meth:`calibrate`. Its method ``record()`` returns plain values and tensors, which are
    the arguments to create it again from a checkpoint."""

    free_after_training: ClassVar[tuple[str, ...]] = ()
    """Names of settings that only say what is reported: a checkpoint can be used with others."""

    is_density: ClassVar[bool] = True
    """Whether exp(-nll) of an example is the probability of its label, as a marginal likelihood is made of; not so of
    training losses that are weighted or smoothed."""

    @abstractmethod
    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The expected negative log-likelihood in nats: the mean of -log p(y | outputs) over samples and examples.

        A scalar, differentiable in ``outputs``; the first term of the ELBO.
        """

    @abstractmethod
    def predictive(self, outputs: Tensor) -> Predictive:
        """The predictive distribution, the equal mixture over samples, in the form that :meth:`log_prob` needs."""

    @abstractmethod
    def log_prob(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """The log of the predictive probability (or density) of y in nats, for each example: ``(batch,)``."""

    @abstractmethod
    def example_score(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """How good each prediction is, ``(batch,)``: at most 1, which is best."""

    @abstractmethod
    def uninformed(self, num_outputs: int) -> Uninformed:
        """Nll and score of the best prediction that ignores the input, for a network with ``num_outputs`` outputs."""

    def check(self, outputs: Tensor, y: Tensor, num_classes: int | None) -> None:  # noqa: B027
        """Checks what training is about to begin with.

        Args:
            outputs: of one training pass of the network over a few images, ``(images, outputs)``.
            y: training labels, as many as are at hand.
            num_classes: of the data; None where they do not say.

        Raises:
            ValueError: when the outputs or the labels are none of this likelihood's.
        """

    def check_labels(self, y: Tensor, num_outputs: int) -> None:  # noqa: B027
        """Checks a batch of labels that validation or test compares outputs with; :meth:`check` saw the first alone.

        Args:
            y: labels ``(batch, ...)``.
            num_outputs: columns of the outputs.

        Raises:
            ValueError: when the labels are none of this likelihood's.
        """

    def num_outputs(self, labels: int) -> int:
        """How many outputs a network must have, before :meth:`prepare`, for so many classes or target columns."""
        return labels

    def prepare(self, net: nn.Module) -> nn.Module:
        """The network whose outputs are all that this likelihood needs; by default ``net`` itself.

        A likelihood that learns numbers of its own, such as the standard deviation of the noise, has them appended to
        the outputs by a module at the network's end: a likelihood holds no parameters.
        """
        return net

    def for_data(self, description: Mapping[str, Any]) -> "Likelihood":
        """The likelihood of the labels that a data module's ``describe()`` tells of; by default this one."""
        return self

    @property
    def departures(self) -> list[str]:
        """What makes the training loss another one than :meth:`nll`, such as label smoothing; by default nothing."""
        return []

    def for_training(self, class_weights: Tensor | None = None) -> "Likelihood":
        """The likelihood whose :meth:`nll` trains a network, while all that is reported is of this one.

        By default this one, which knows no classes.

        Args:
            class_weights: by which the nll of an example of each class is multiplied, ``(classes,)``; None for none.

        Raises:
            ValueError: when there are weights, and no classes.
        """
        if class_weights is not None:
            raise ValueError(f"class_weights must be null with {type(self).__name__}, whose labels are no classes.")
        return self

    def output_hessian(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The Hessian of -log p(y | outputs) in the outputs of each example, ``(batch, outputs, outputs)``.

        Positive semidefinite, or its expectation over y, which is. Laplace approximations need it.

        Args:
            outputs: of one forward pass, ``(batch, outputs)``.
            y: labels.

        Raises:
            ValueError: by default, for it is not known.
        """
        raise ValueError(
            f"likelihood must be one with an output_hessian, such as Categorical, for a Laplace approximation, got "
            f"{type(self).__name__}."
        )

    def training_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean over samples and examples of the score, each sample scored by itself: a scalar."""
        scores = [self.example_score(self.predictive(sample.unsqueeze(0)), y) for sample in outputs]
        return torch.stack([score.float().mean() for score in scores]).mean()

    def summary(self, outputs: Tensor) -> Predictive:
        """:meth:`predictive` together with uncertainties of each example, for test and predict."""
        return self.predictive(outputs)

    def exported(self, outputs: Tensor, calibration: Any = None) -> Predictive:
        """What a graph of ``bnn export`` gives for a batch, by name; all that :meth:`predictions` reads is among it.

        Made of torch's functions without branches on values. By default :meth:`summary`.

        Args:
            outputs: of the samples.
            calibration: the result of :meth:`calibrate` for samples drawn in the same way, or None.
        """
        return self.summary(outputs)

    def mixture(self, outputs: Tensor) -> Callable[[Tensor], Predictive]:
        """A function from counts ``(samples,)`` to the predictive in which sample t counts ``counts[t]`` times.

        The bootstrap over draws calls it many times.
        """
        return lambda counts: self.predictive(outputs.repeat_interleave(counts.long(), 0))

    def metrics(self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Any = None) -> dict[str, float]:
        """The metrics that test reports, means over examples; with a calibration also calibrated ones, ``..._scaled``.

        By default the score and the nll of the predictive, in nats.
        """
        return {
            self.score: self.example_score(predictive, y).double().mean().item(),
            "nll": -self.log_prob(predictive, y).double().mean().item(),
        }

    def metrics_of_examples(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Any = None
    ) -> Callable[[Tensor], dict[str, float]]:
        """A function from indices of examples to the :meth:`metrics` on them.

        The bootstrap over examples calls it many times.
        """
        return lambda index: self.metrics(
            {name: values[index] for name, values in predictive.items()}, y[index], calibration
        )

    def metrics_of_draws(
        self, outputs: Tensor, y: Tensor, calibration: Any = None
    ) -> Callable[[Tensor], dict[str, float]]:
        """A function from counts ``(samples,)`` to the :meth:`metrics` of their :meth:`mixture`.

        The bootstrap over draws calls it many times. What it leaves out has no error from the draws.
        """
        mixture = self.mixture(outputs)
        return lambda counts: self.metrics(mixture(counts), y, calibration)

    def confusion(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor | None:
        """How many examples of each class (rows) were predicted as each class (columns): ``(classes, classes)``, int64.

        By default None: labels are no classes.
        """
        return None

    def target_rows(self, predictive: Mapping[str, Tensor], y: Tensor) -> list[dict[str, Any]]:
        """A row of metrics for each target, with its ``name``, where labels are numbers; by default none."""
        return []

    def caveats(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Any, class_names: Sequence[str]
    ) -> list[str]:
        """What must be said beside :meth:`metrics`, such as that there are too few examples; by default nothing.

        Args:
            predictive: of the examples.
            y: their labels.
            calibration: the result of :meth:`calibrate` for samples drawn in the same way, or None.
            class_names: of the labels, as far as they are known.
        """
        return []

    def ood_scores(self, summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Scores of each example by name, ``(batch,)``, higher for out-of-distribution inputs; by default none."""
        return {}

    def calibrate(self, predictive: Mapping[str, Tensor], y: Tensor) -> Any:
        """A calibration of predictions, fitted on labelled examples: the calibration half of the hold-out.

        By default None, no calibration.
        """
        return None

    def thresholds(self, calibration: Any, target_risk: float, alpha: float, target_error: float | None = None) -> Any:
        """What :meth:`predictions` needs of a calibration, found once for many of them; by default None.

        Args:
            calibration: the result of :meth:`calibrate` for samples drawn in the same way, or None.
            target_risk: the highest allowed error rate of accepted predictions.
            alpha: the allowed rate at which prediction sets or intervals miss the label.
            target_error: of labels that are numbers, the largest error that is no mistake; None decides nothing.
        """
        return None

    def predictions(
        self,
        summary: Mapping[str, Tensor],
        class_names: Sequence[str],
        thresholds: Any,
        files: Sequence[str] | None = None,
        labels: Tensor | None = None,
    ) -> Predictions:
        """What is said of examples, by ``bnn predict`` and by :class:`bnn_lightning.Predictor`.

        By default every entry of the summary that is one number for each example.

        Args:
            summary: of the examples, as :meth:`summary` returns it.
            class_names: of the labels, as far as they are known.
            thresholds: the result of :meth:`thresholds`.
            files: names of the examples, such as their files; None where they have none.
            labels: of the examples; -1 or nan where one is not known; None where none is.
        """
        numbers = {name: as_array(values.flatten()) for name, values in summary.items() if values[0].numel() == 1}
        known = None if labels is None else as_array(labels)
        count = len(next(iter(summary.values())))
        values = np.stack([*numbers.values()], 1) if numbers else np.empty((count, 0))
        return Summaries(names_array(files), known, values, tuple(numbers))

    def decision_rule(
        self, calibration: Any, target_risk: float, alpha: float, target_error: float | None = None
    ) -> str:
        """The rules of :meth:`predictions` as a sentence for the user; empty if there are none."""
        return ""
