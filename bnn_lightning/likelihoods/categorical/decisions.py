"""The rules by which predictions are accepted and prediction sets formed, in sentences for the user."""

import math

from bnn_lightning.likelihoods.categorical.calibration import Calibration
from bnn_lightning.likelihoods.categorical.credibility import temperature_caveats
from bnn_lightning.likelihoods.selective import CONFIDENCE_LEVEL, cure_of_abstaining, examples_needed

ENOUGH_ACCEPTED = 100
"""Accepted calibration images below which their coverage and error rate are called rough: at 100 images the standard
error of a rate of 10 % is 3 %. The bound on the error rate holds for any number."""


def decision_rule(calibration: Calibration | None, target_risk: float, alpha: float) -> str:
    """The rules of ClassPredictions and their guarantees, in sentences for the user."""
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
            f"{100 * target_risk:g} %{needs}; {cure_of_abstaining(calibration.accept_rule)}."
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
            f"class of {100 * alpha:g} % of images, which takes {math.ceil(1 / alpha) - 1:,}; hold out more when "
            "training (val_split)."
        )
    return (
        f"Prediction sets miss the true class of at most {100 * alpha:g} % of images like those of the calibration, "
        f"averaged over calibrations; with these {images:,} images of at most "
        f"{100 * bound:.1f} % at {100 * CONFIDENCE_LEVEL:g} % confidence."
    )
