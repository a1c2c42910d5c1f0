"""What to make of each prediction: accept it or abstain, and which classes it could be."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bnn_lightning.likelihoods.categorical.calibration import CONFIDENCE_LEVEL, Calibration, scaled


def names_of_classes(known: Sequence[str], count: int) -> list[str]:
    """A name for each of ``count`` outputs; numbers stand for those that are not known."""
    return [*known[:count], *map(str, range(len(known), count))]


def decisions(
    summary: Mapping[str, Tensor],
    names: Sequence[str],
    classes: Sequence[str],
    calibration: Calibration | None,
    target_risk: float,
    alpha: float,
) -> list[dict[str, Any]]:
    """A row for each image, for a table.

    ``confidence`` is the probability of the predicted class. On it is based the decision ``accept`` or ``abstain``, and
    on the probabilities of all classes the prediction set ``set``, most probable first; ``calibrated_confidence`` is at
    the calibrated temperature. Without a calibration these three are missing. The predicted class is always part
    of its set, so that none is empty; that can only lower the rate of misses.

    Args:
        summary: of the images, see :func:`bnn_lightning.likelihoods.categorical.predictive.summary`.
        names: what identifies each image to a person.
        classes: their names, as far as they are known.
        calibration: of the way that the samples were drawn in.
        target_risk: see :meth:`Calibration.accept_rule`.
        alpha: see :meth:`Calibration.set_threshold`.
    """
    log_probs = summary["log_probs"].double()
    probs = log_probs.exp()
    confidence, predicted = probs.max(-1)
    named = names_of_classes(classes, probs.shape[-1])
    rows = []
    for index, (name, label) in enumerate(zip(names, predicted.tolist(), strict=True)):
        row: dict[str, Any] = {"file": name, "class": label, "name": named[label]}
        row["confidence"] = round(confidence[index].item(), 6)
        for key in ("entropy", "mutual_information", "aleatoric", "epistemic"):
            row[key] = float(f"{summary[key][index].item():.6g}")
        rows.append(row)
    if calibration is None:
        return rows
    least = calibration.accept_rule(target_risk).threshold
    within = calibration.set_threshold(alpha)
    at_temperature = scaled(log_probs, calibration.temperature).exp().amax(-1)
    for row, sure, calibrated, image in zip(rows, confidence.tolist(), at_temperature.tolist(), probs, strict=True):
        row["calibrated_confidence"] = round(calibrated, 6)
        row["decision"] = "accept" if sure >= least else "abstain"
        likely = [label for label in image.argsort(descending=True, stable=True).tolist() if image[label] >= within]
        row["set"] = " | ".join(named[label] for label in likely or [row["class"]])
    return rows


def decision_rule(calibration: Calibration | None, target_risk: float, alpha: float) -> str:
    """The rules that :func:`decisions` went by, and what they promise."""
    if calibration is None:
        return (
            "The checkpoint holds no calibration for this way of predicting, so there is no accept or abstain, and "
            "there are no prediction sets; bnn fit stores one when a run with a hold-out ends."
        )
    rule = calibration.accept_rule(target_risk)
    images = len(calibration.correct)
    sets = f"Prediction sets miss the true class of at most {100 * alpha:g} % of images like those of the calibration."
    if math.isinf(rule.threshold):
        return (
            f"All abstain: {images:,} calibration images cannot bound the error rate of any share of predictions by "
            f"{100 * target_risk:g} %. {sets}"
        )
    return (
        f"Accepted is what has a confidence of {rule.threshold:.4f} or more: {100 * rule.coverage:.1f} % of {images:,} "
        f"calibration images, {100 * rule.risk:.2f} % of them wrong; on images like those below {100 * target_risk:g} "
        f"% at {100 * CONFIDENCE_LEVEL:g} % confidence. {sets}"
    )
