"""The evaluation that test reports: metrics with their errors, OOD detection, metrics on corrupted images."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.evaluation.collect import SetOutputs
from bnn_lightning.evaluation.metrics import Estimate, detection_metrics, estimates, resample
from bnn_lightning.likelihoods.base import Likelihood


@dataclass(frozen=True)
class Evaluation:
    """The results of test.

    Args:
        images: number of test images.
        predictions: ``predictions[prediction][metric]`` on the test images. A prediction is ``samples`` or an
            alternative such as ``mean_weights``; metrics that end in ``_scaled`` are at the calibrated temperature.
        temperature: the calibrated temperature of classes; None without a calibration.
        std_scale: the calibrated factor on the predictive standard deviation of each target; None likewise.
        ood: ``ood[set][score][metric]``, the detection metrics of each score for each set of OOD images.
        corruptions: ``corruptions[kind][severity][metric]``; kind ``clean``, severity 0 is the same images uncorrupted.
        confusion: see :meth:`bnn_lightning.Likelihood.confusion`, of the samples; None where labels are no classes.
    """

    images: int
    predictions: dict[str, dict[str, Estimate]]
    temperature: float | None = None
    std_scale: list[float] | None = None
    ood: dict[str, dict[str, dict[str, Estimate]]] = field(default_factory=dict)
    corruptions: dict[str, dict[int, dict[str, float]]] = field(default_factory=dict)
    confusion: Tensor | None = None

    @property
    def undetected(self) -> list[str]:
        """The OOD sets that no score tells from the test images: each AUROC is within two errors of 0.5, or below."""

        def is_detected(auroc: Estimate) -> bool:
            return not auroc.value - 2 * (auroc.image_error or 0) <= 0.5  # nan is no sign of either

        return [
            name
            for name, by_score in self.ood.items()
            if by_score and not any(is_detected(metrics["auroc"]) for metrics in by_score.values())
        ]

    def flat(self) -> dict[str, float]:
        """All values without their errors, by the names under which they are logged, such as ``test/nll``."""
        values: dict[str, float] = {}
        for prediction, estimates_of in self.predictions.items():
            prefix = "test" if prediction == "samples" else f"test_{prediction}"
            values |= {f"{prefix}/{metric}": estimate.value for metric, estimate in estimates_of.items()}
        for name, by_score in self.ood.items():
            for score, estimates_of in by_score.items():
                values |= {f"ood_{name}/{score}_{metric}": estimate.value for metric, estimate in estimates_of.items()}
        for kind, by_severity in self.corruptions.items():
            for severity, metrics in by_severity.items():
                values |= {f"corruption_{kind}/{metric}_{severity}": value for metric, value in metrics.items()}
        return values


def evaluate(
    sets: Mapping[str, SetOutputs], likelihood: Likelihood, calibration: Any = None, members: int = 1
) -> Evaluation:
    """The evaluation of a network's predictions on sets of images.

    Args:
        sets: by the names of ``ImageData.test_sets``: first the test set, then ``ood/NAME`` and ``KIND/SEVERITY``.
        likelihood: of the labels.
        calibration: of samples drawn in the same way; None leaves the scaled metrics out.
        members: number of networks of an ensemble, each with an equal number of the samples.
    """
    names = list(sets)
    test = sets[names[0]]
    predictions = {"samples": _with_errors(likelihood, test.summary, test.labels, calibration, test.outputs, members)}
    for prediction, predictive in test.alternatives.items():
        predictions[prediction] = _with_errors(likelihood, predictive, test.labels)
    ood: dict[str, dict[str, dict[str, Estimate]]] = {}
    corruptions: dict[str, dict[int, dict[str, float]]] = {}
    for name in names[1:]:
        kind, _, rest = name.partition("/")
        if kind == "ood":
            ood[rest] = _ood_detection(likelihood, test, sets[name])
        else:
            metrics = likelihood.metrics(sets[name].summary, sets[name].labels)
            headline = {metric: metrics[metric] for metric in likelihood.headline}
            corruptions.setdefault(kind, {})[int(rest)] = headline
    temperature, std_scale = getattr(calibration, "temperature", None), getattr(calibration, "std_scale", None)
    confusion = likelihood.confusion(test.summary, test.labels)
    scale = None if std_scale is None else std_scale.tolist()
    return Evaluation(len(test.labels), predictions, temperature, scale, ood, corruptions, confusion)


def _with_errors(
    likelihood: Likelihood,
    predictive: Mapping[str, Tensor],
    labels: Tensor,
    calibration: Any = None,
    outputs: Tensor | None = None,
    members: int = 1,
) -> dict[str, Estimate]:
    """The metrics of a predictive with the errors from the images; with ``outputs`` also the errors from the draws.

    Args:
        likelihood: of the labels.
        predictive: of the test images.
        labels: of the test images.
        calibration: of the predictive, or None.
        outputs: the samples behind the predictive, ``(samples, images, outputs)``.
        members: number of networks of an ensemble.
    """
    of_images = likelihood.metrics_of_examples(predictive, labels, calibration)
    metrics = of_images(torch.arange(len(labels)))

    def on_images(generator: torch.Generator) -> dict[str, float]:
        return of_images(resample(len(labels), generator))

    if outputs is None or len(outputs) == members:  # with one draw for each member their variation is unknown
        return estimates(metrics, on_images)
    of_draws = likelihood.metrics_of_draws(outputs, labels, calibration)

    def on_draws(generator: torch.Generator) -> dict[str, float]:
        # Members of an ensemble are fixed: the bootstrap resamples the draws of each member.
        per_member = len(outputs) // members
        counts = [resample(per_member, generator).bincount(minlength=per_member) for _ in range(members)]
        return of_draws(torch.cat(counts))

    return estimates(metrics, on_images, on_draws)


def _ood_detection(likelihood: Likelihood, inside: SetOutputs, outside: SetOutputs) -> dict[str, dict[str, Estimate]]:
    """The detection metrics of each OOD score of the likelihood, for ``outside`` against ``inside``."""
    detection = {}
    scores = zip(
        likelihood.ood_scores(inside.summary).items(), likelihood.ood_scores(outside.summary).values(), strict=True
    )
    for (name, inside_scores), outside_scores in scores:
        pair = (inside_scores, outside_scores)

        def on_images(generator: torch.Generator, pair: tuple[Tensor, Tensor] = pair) -> dict[str, float]:
            return detection_metrics(*(scores[resample(len(scores), generator)] for scores in pair))

        detection[name] = estimates(detection_metrics(*pair), on_images)
    return detection
