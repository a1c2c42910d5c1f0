"""What test measures: scores with their errors, the same at the calibrated temperature, OOD detection, corruptions."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bnn_lightning.evaluation.metrics import Estimate, as_ranks, estimates, ood_scores, resample
from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.predictive import log_predictive, probabilities
from bnn_lightning.likelihoods.categorical.scores import scores

# What an image from elsewhere should have more of, by what it is called in tables.
OOD_SCORES = ("entropy", "tempered_entropy", "mutual_information", "one_minus_max_p", "epistemic")
OOD_TEMPERATURE = 3.0
"""Of the tempered entropy, which looks past the most probable class at how the others share what is left. Of 1, 1.5, 2,
3, 5 and 10 it told RenderedLetters from MNIST best, for a LeNet under LRT (AUROC 0.948; 0.934 at 1)."""

_SCALED = ("nll", "brier", "ece", "adaptive_ece")
_CORRUPTED = ("accuracy", "nll", "ece")


@dataclass(frozen=True)
class Evaluation:
    """Everything that test found out, by way of predicting, set of images and score.

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
        found: dict[str, float] = {}
        for way, measured in self.predictions.items():
            prefix = "test" if way == "samples" else f"test_{way}"
            found |= {f"{prefix}/{name}": estimate.value for name, estimate in measured.items()}
        for name, by_score in self.ood.items():
            for score, measured in by_score.items():
                found |= {f"ood_{name}/{score}_{metric}": estimate.value for metric, estimate in measured.items()}
        for kind, by_severity in self.corruptions.items():
            for severity, values in by_severity.items():
                found |= {f"corruption_{kind}/{metric}_{severity}": value for metric, value in values.items()}
        return found


def evaluate(sets: Mapping[str, Mapping[str, Tensor]], calibration: Calibration | None, members: int = 1) -> Evaluation:
    """The evaluation of what a network said about sets of images.

    Args:
        sets: for each set of images, under the names of ``ImageData.test_sets``, the tensors of
            the likelihood's summary and ``labels``. The first, which is the test set, has ``logits``
            ``(images, samples, classes)`` too, and ``log_probs_WAY`` of each other way of predicting.
        calibration: of the way that the samples were drawn in; None leaves the scaled metrics out.
        members: of an ensemble, each with an equal part of the samples.
    """
    names = list(sets)
    test = sets[names[0]]
    labels, logits = test["labels"], test["logits"].transpose(0, 1)
    temperature = None if calibration is None else calibration.temperature
    predictions = {"samples": _with_errors(test["log_probs"], labels, temperature, logits, members)}
    for key, log_probs in test.items():
        if key.startswith("log_probs_"):
            predictions[key.removeprefix("log_probs_")] = _with_errors(log_probs, labels)
    ood: dict[str, dict[str, dict[str, Estimate]]] = {}
    corruptions: dict[str, dict[int, dict[str, float]]] = {}
    for name in names[1:]:
        kind, _, rest = name.partition("/")
        if kind == "ood":
            ood[rest] = _detection(test, sets[name])
        else:
            measured = scores(sets[name]["log_probs"], sets[name]["labels"])
            corruptions.setdefault(kind, {})[int(rest)] = {metric: measured[metric] for metric in _CORRUPTED}
    return Evaluation(len(labels), predictions, temperature, ood, corruptions)


def _with_errors(
    log_probs: Tensor,
    labels: Tensor,
    temperature: float | None = None,
    logits: Tensor | None = None,
    members: int = 1,
) -> dict[str, Estimate]:
    def measure(log_probs: Tensor, labels: Tensor) -> dict[str, float]:
        found = scores(log_probs, labels)
        if temperature is not None:
            at_temperature = scores(scaled(log_probs, temperature), labels)
            found |= {f"{name}_scaled": at_temperature[name] for name in _SCALED}
        return found

    def on_images(generator: torch.Generator) -> dict[str, float]:
        index = resample(len(labels), generator)
        return measure(log_probs[index], labels[index])

    if logits is None or len(logits) == members:  # nothing was drawn, or too little to know how it varies
        return estimates(measure(log_probs, labels), on_images)
    probs = probabilities(logits)
    smallest = torch.finfo(probs.dtype).tiny

    def on_draws(generator: torch.Generator) -> dict[str, float]:
        # The members of an ensemble are what they are; it is the draws of each that could have been others.
        each = len(probs) // members
        counts = [resample(each, generator).bincount(minlength=each) for _ in range(members)]
        share = torch.cat(counts).to(probs.dtype) / len(probs)
        mean = torch.tensordot(share, probs, 1)
        return measure(mean.clamp_min(smallest).log(), labels)

    return estimates(measure(log_predictive(logits), labels), on_images, on_draws)


def ood_score(found: Mapping[str, Tensor], name: str) -> Tensor:
    """One of :data:`OOD_SCORES` for each image, from the tensors of the likelihood's summary.

    ``tempered_entropy`` is that of softmax(log p / 3): temperatures above 1 help detection (Liang et al. 2018,
    arXiv:1706.02690), which has nothing to do with the temperature that calibrates.
    """
    if name == "one_minus_max_p":
        return -found["log_probs"].amax(-1).expm1()
    if name == "tempered_entropy":
        return torch.special.entr(scaled(found["log_probs"], OOD_TEMPERATURE).exp()).sum(-1)
    return found[name]


def _detection(inside: Mapping[str, Tensor], outside: Mapping[str, Tensor]) -> dict[str, dict[str, Estimate]]:
    found = {}
    for name in OOD_SCORES:
        ranks = as_ranks(ood_score(inside, name), ood_score(outside, name))

        def on_images(generator: torch.Generator, ranks: tuple[Tensor, Tensor] = ranks) -> dict[str, float]:
            ours, theirs = (part[resample(len(part), generator)] for part in ranks)
            return ood_scores(ours, theirs)

        found[name] = estimates(ood_scores(*ranks), on_images)
    return found
