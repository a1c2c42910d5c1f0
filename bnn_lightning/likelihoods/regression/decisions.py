"""The rules by which predicted numbers are accepted and intervals formed, in sentences for the user."""

import math

from bnn_lightning.likelihoods.regression.calibration import Calibration
from bnn_lightning.likelihoods.regression.units import Units
from bnn_lightning.likelihoods.selective import CONFIDENCE_LEVEL, cure_of_abstaining, examples_needed


def decision_rule(
    units: Units, calibration: Calibration | None, target_risk: float, alpha: float, target_error: float | None
) -> str:
    """The rules of NumberPredictions and their guarantees, in sentences for the user."""
    if calibration is None:
        return (
            "The checkpoint holds no calibration for this way of predicting, so there are no conformal intervals, and "
            "there is no accept or abstain; bnn fit stores one when a run with a hold-out ends."
        )
    examples = len(calibration.errors)
    if math.isinf(calibration.conformal_factor(alpha)[0].item()):
        sentences = [
            f"Conformal intervals are infinite: {examples:,} calibration examples are too few for intervals that miss "
            f"{100 * alpha:g} % of targets, which takes {math.ceil(1 / alpha) - 1:,}; hold out more when "
            "training (val_split)."
        ]
    else:
        sentences = [
            f"Conformal intervals miss at most {100 * alpha:g} % of targets like those of the {examples:,} calibration "
            "examples, averaged over calibrations."
        ]
    if target_error is None:
        sentences.append("There is no accept or abstain without --target_error, the largest error that is no mistake.")
    else:
        sentences.append(_accept_sentence(units, calibration, target_risk, target_error))
    return " ".join(sentences)


def _accept_sentence(units: Units, calibration: Calibration, target_risk: float, target_error: float) -> str:
    target_stds = calibration.stds.new_tensor(units.std)
    rule = calibration.accept_rule(target_risk, target_error, target_stds)
    examples = len(calibration.errors)
    if math.isinf(rule.threshold):
        needed = examples_needed(examples, target_risk)
        needs = f", which takes {needed:,} without a mistake" if needed > examples else ""
        cure = cure_of_abstaining(lambda risk: calibration.accept_rule(risk, target_error, target_stds))
        return (
            f"All abstain: {examples:,} calibration examples cannot bound the rate of errors above {target_error:g} in "
            f"any share of predictions by {100 * target_risk:g} %{needs}; {cure}."
        )
    widest = f"{-rule.threshold * units.std[0]:.4g}"
    if len(units.std) > 1:
        widest = f"{-rule.threshold:.4g} standard deviations of each target"
    return (
        f"Accepted is what has a predictive standard deviation of {widest} or less: {100 * rule.coverage:.1f} % of "
        f"{examples:,} calibration examples, {100 * rule.risk:.2f} % of them wrong by more than {target_error:g}; of "
        f"examples like those below {100 * target_risk:g} % at {100 * CONFIDENCE_LEVEL:g} % confidence."
    )
