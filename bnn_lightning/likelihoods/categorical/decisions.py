"""Decisions on predictions: accept or abstain, and prediction sets. Rows of a table, and the rules in a sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.credibility import temperature_caveats
from bnn_lightning.likelihoods.selective import CONFIDENCE_LEVEL, examples_needed

ENOUGH_ACCEPTED = 100
"""Accepted calibration images below which their coverage and error rate are called rough: at 100 images the standard
error of a rate of 10 % is 3 %. The bound on the error rate holds for any number."""


def names_of_classes(known: Sequence[str], count: int) -> list[str]:
    """A name for each of ``count`` classes; a class without a known name is named by its number."""
    return [*known[:count], *map(str, range(len(known), count))]


def decisions(
    summary: Mapping[str, Tensor],
    names: Sequence[str],
    classes: Sequence[str],
    calibration: Calibration | None,
    target_risk: float,
    alpha: float,
) -> list[dict[str, Any]]:
    """A row for each image, for the table that predict writes.

    Columns: ``file``, ``class`` (the number of the predicted class), ``name`` (its name), ``confidence`` (its
    probability), and the uncertainties of the summary. With a calibration also ``calibrated_confidence`` (at the
    calibrated temperature), ``decision`` (``accept`` or ``abstain``, by ``confidence``), and ``set`` (the names of the
    classes of the prediction set, most probable first, with a | between them; one in a name has a backslash before
    it). The predicted class is always in the set, so that no set is empty; that can only lower the rate at which sets
    miss the label.

    Args:
        summary: of the images, see :func:`bnn_lightning.likelihoods.categorical.predictive.summary`.
        names: of the images, such as file names.
        classes: names of the classes, as far as they are known.
        calibration: of samples drawn in the same way, or None.
        target_risk: see :meth:`Calibration.accept_rule`.
        alpha: see :meth:`Calibration.prediction_set_threshold`.
    """
    log_probs = summary["log_probs"].double()
    probs = log_probs.exp()
    confidence, predicted = probs.max(-1)
    class_names = names_of_classes(classes, probs.shape[-1])
    rows = []
    for index, (name, label) in enumerate(zip(names, predicted.tolist(), strict=True)):
        row: dict[str, Any] = {"file": name, "class": label, "name": class_names[label]}
        row["confidence"] = round(confidence[index].item(), 6)
        for key in ("entropy", "mutual_information", "aleatoric", "epistemic"):
            row[key] = float(f"{summary[key][index].item():.6g}")
        rows.append(row)
    if calibration is None:
        return rows
    accept_threshold = calibration.accept_rule(target_risk).threshold
    set_threshold = calibration.prediction_set_threshold(alpha)
    calibrated_confidence = scaled(log_probs, calibration.temperature).exp().amax(-1)
    for index, (row, image_probs) in enumerate(zip(rows, probs, strict=True)):
        row["calibrated_confidence"] = round(calibrated_confidence[index].item(), 6)
        row["decision"] = "accept" if confidence[index].item() >= accept_threshold else "abstain"
        by_probability = image_probs.argsort(descending=True, stable=True).tolist()
        prediction_set = [label for label in by_probability if image_probs[label] >= set_threshold]
        row["set"] = " | ".join(class_names[label].replace("|", r"\|") for label in prediction_set or [row["class"]])
    return rows


def decision_rule(calibration: Calibration | None, target_risk: float, alpha: float) -> str:
    """The rules of :func:`decisions` and their guarantees, in sentences for the user."""
    if calibration is None:
        return (
            "The checkpoint holds no calibration for this way of predicting, so there is no accept or abstain, and "
            "there are no prediction sets; bnn fit stores one when a run with a hold-out ends."
        )
    sentences = [_accept_sentence(calibration, target_risk), _set_sentence(calibration, alpha)]
    if caveats := temperature_caveats(calibration):
        sentences.append(f"calibrated_confidence is to be read with care: {', '.join(caveats)}.")
    return " ".join(sentences)


def _accept_sentence(calibration: Calibration, target_risk: float) -> str:
    rule = calibration.accept_rule(target_risk)
    images, needed = len(calibration.correct), examples_needed(len(calibration.correct), target_risk)
    if math.isinf(rule.threshold):
        needs = f", which takes {needed:,} without a mistake" if needed > images else ""
        return (
            f"All abstain: {images:,} calibration images cannot bound the error rate of any share of predictions by "
            f"{100 * target_risk:g} %{needs}."
        )
    accepted = round(rule.coverage * images)
    few = f", of so few ({accepted}) that these shares are rough" if accepted < ENOUGH_ACCEPTED else ""
    return (
        f"Accepted is what has a confidence of {rule.threshold:.4f} or more: {100 * rule.coverage:.1f} % of {images:,} "
        f"calibration images, {100 * rule.risk:.2f} % of them wrong{few}; on images like those below "
        f"{100 * target_risk:g} % at {100 * CONFIDENCE_LEVEL:g} % confidence."
    )


def _set_sentence(calibration: Calibration, alpha: float) -> str:
    images, bound = len(calibration.correct), calibration.prediction_set_bound(alpha)
    if bound == 0:
        return (
            f"Prediction sets hold every class: {images:,} calibration images are too few for sets that miss the true "
            f"class of {100 * alpha:g} % of images, which takes {math.ceil(1 / alpha) - 1:,}."
        )
    return (
        f"Prediction sets miss the true class of at most {100 * alpha:g} % of images like those of the calibration, "
        f"averaged over calibrations; with these {images:,} images of at most "
        f"{100 * bound:.1f} % at {100 * CONFIDENCE_LEVEL:g} % confidence."
    )
