"""What test measures: metrics with their errors, the same at the calibrated temperature, OOD detection, corruptions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.evaluation.collect import SetOutputs
from bnn_lightning.evaluation.metrics import Estimate, as_ranks, detection_metrics, estimates, resample
from bnn_lightning.likelihoods.base import Likelihood


@dataclass(frozen=True)
class Evaluation:
    """What test measures, by way of predicting, set of images and score.

    ``predictions[way][metric]``, ``ood[set][score][metric]`` and ``corruptions[kind][severity][metric]``; the last has
    the same images uncorrupted as kind "clean", severity 0. Metrics that end in ``_scaled`` are at ``temperature``.
    """

    images: int
    predictions: dict[str, dict[str, Estimate]]
    temperature: float | None = None
    ood: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    corruptions: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)

    def flat(self) -> dict[str, float]:
        """Every number under a name with slashes, for a logger."""
        values: dict[str, float] = {}
        for way, measured in self.predictions.items():
            prefix = "test" if way == "samples" else f"test_{way}"
            values |= {f"{prefix}/{name}": estimate.value for name, estimate in measured.items()}
        for name, by_score in self.ood.items():
            for score, measured in by_score.items():
                values |= {f"ood_{name}/{score}_{metric}": estimate.value for metric, estimate in measured.items()}
        for kind, by_severity in self.corruptions.items():
            for severity, metrics in by_severity.items():
                values |= {f"corruption_{kind}/{metric}_{severity}": value for metric, value in metrics.items()}
        return values


def evaluate(
    sets: Mapping[str, SetOutputs], likelihood: Likelihood, calibration: Any = None, members: int = 1
) -> Evaluation:
    """The evaluation of what a network said about sets of images.

    Args:
        sets: under the names of ``ImageData.test_sets``; the first is the test set.
        likelihood: of the labels.
        calibration: of the way that the samples were drawn in; None leaves the scaled metrics out.
        members: of an ensemble, each with an equal part of the samples.
    """
    names = list(sets)
    test = sets[names[0]]
    predictions = {"samples": _with_errors(likelihood, test.summary, test.labels, calibration, test.outputs, members)}
    for way, predictive in test.others.items():
        predictions[way] = _with_errors(likelihood, predictive, test.labels)
    ood: dict[str, dict[str, dict[str, Estimate]]] = {}
    corruptions: dict[str, dict[int, dict[str, float]]] = {}
    for name in names[1:]:
        kind, _, rest = name.partition("/")
        if kind == "ood":
            ood[rest] = _detection(likelihood, test, sets[name])
        else:
            metrics = likelihood.metrics(sets[name].summary, sets[name].labels)
            headline = {metric: metrics[metric] for metric in likelihood.headline}
            corruptions.setdefault(kind, {})[int(rest)] = headline
    temperature = getattr(calibration, "temperature", None)
    return Evaluation(len(test.labels), predictions, temperature, ood, corruptions)


def _with_errors(
    likelihood: Likelihood,
    predictive: Mapping[str, Tensor],
    labels: Tensor,
    calibration: Any = None,
    outputs: Tensor | None = None,
    members: int = 1,
) -> dict[str, Estimate]:
    """The metrics of one way of predicting; with the outputs of several draws also the errors that come from these."""
    metrics = likelihood.metrics(predictive, labels, calibration)

    def on_images(generator: torch.Generator) -> dict[str, float]:
        index = resample(len(labels), generator)
        return likelihood.metrics(
            {name: values[index] for name, values in predictive.items()}, labels[index], calibration
        )

    if outputs is None or len(outputs) == members:  # nothing was drawn, or too little to know how it varies
        return estimates(metrics, on_images)
    mixture = likelihood.mixture(outputs)

    def on_draws(generator: torch.Generator) -> dict[str, float]:
        # The members of an ensemble are what they are; it is the draws of each that could have been others.
        each = len(outputs) // members
        counts = [resample(each, generator).bincount(minlength=each) for _ in range(members)]
        return likelihood.metrics(mixture(torch.cat(counts)), labels, calibration)

    return estimates(metrics, on_images, on_draws)


def _detection(likelihood: Likelihood, inside: SetOutputs, outside: SetOutputs) -> dict[str, dict[str, Estimate]]:
    """How well each score of the likelihood tells ``outside`` from ``inside``."""
    detection = {}
    scores = zip(
        likelihood.ood_scores(inside.summary).items(), likelihood.ood_scores(outside.summary).values(), strict=True
    )
    for (name, inside_scores), outside_scores in scores:
        ranks = as_ranks(inside_scores, outside_scores)

        def on_images(generator: torch.Generator, ranks: tuple[Tensor, Tensor] = ranks) -> dict[str, float]:
            resampled = [part[resample(len(part), generator)] for part in ranks]
            return detection_metrics(*resampled)

        detection[name] = estimates(detection_metrics(*ranks), on_images)
    return detection
