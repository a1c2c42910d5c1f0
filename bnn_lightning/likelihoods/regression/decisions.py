"""Decisions on predicted numbers: intervals, accept or abstain. Rows of a table, and the rules in a sentence."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from bnn_lightning.likelihoods.regression.calibration import Calibration, confidence
from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.regression.units import Units
from bnn_lightning.likelihoods.selective import CONFIDENCE_LEVEL, examples_needed


def decisions(
    summary: Mapping[str, Tensor],
    names: Sequence[str],
    units: Units,
    calibration: Calibration | None,
    target_risk: float,
    alpha: float,
    target_error: float | None,
) -> list[dict[str, Any]]:
    """A row for each example, for the table that predict writes; all numbers in the units of the targets.

    Columns: ``file``; for each target ``mean``, ``aleatoric_std``, ``epistemic_std``, ``std`` (of both together),
    ``low`` and ``high`` (the central interval of probability 1 - alpha of the predictive). With a calibration also
    ``conformal_low`` and ``conformal_high``, and with a ``target_error`` the ``decision``, ``accept`` or ``abstain``.
    Where there are several targets, their names stand before those of the columns.

    Args:
        summary: of the examples, see :meth:`bnn_lightning.Likelihood.summary`.
        names: of the examples.
        units: of the targets.
        calibration: of samples drawn in the same way, or None.
        target_risk, target_error: see :meth:`Calibration.accept_rule`.
        alpha: see :meth:`Calibration.conformal_factor`.
    """
    mixture = Mixture.of(summary).double()
    aleatoric, epistemic = (part.sqrt() for part in mixture.variances())
    mean, std = mixture.mean(), mixture.std()
    low, high = mixture.interval(1 - alpha)
    columns = {"mean": mean, "aleatoric_std": aleatoric, "epistemic_std": epistemic, "std": std, "low": low}
    columns["high"] = high
    if calibration is not None:
        half = calibration.conformal_factor(alpha) * std
        columns |= {"conformal_low": mean - half, "conformal_high": mean + half}
    prefixes = [""] if len(units.names) == 1 else [f"{name} " for name in units.names]
    rows = []
    for index, name in enumerate(names):
        row: dict[str, Any] = {"file": name}
        for target, prefix in enumerate(prefixes):
            row |= {f"{prefix}{key}": float(f"{values[index, target]:.6g}") for key, values in columns.items()}
        rows.append(row)
    if calibration is not None and target_error is not None:
        target_stds = std.new_tensor(units.std)
        threshold = calibration.accept_rule(target_risk, target_error, target_stds).threshold
        for row, certain in zip(rows, confidence(std, target_stds).tolist(), strict=True):
            row["decision"] = "accept" if certain >= threshold else "abstain"
    return rows


def decision_rule(
    units: Units, calibration: Calibration | None, target_risk: float, alpha: float, target_error: float | None
) -> str:
    """The rules of :func:`decisions` and their guarantees, in sentences for the user."""
    if calibration is None:
        return (
            "The checkpoint holds no calibration for this way of predicting, so there are no conformal intervals, and "
            "there is no accept or abstain; bnn fit stores one when a run with a hold-out ends."
        )
    examples = len(calibration.errors)
    if math.isinf(calibration.conformal_factor(alpha)[0].item()):
        sentences = [
            f"Conformal intervals are infinite: {examples:,} calibration examples are too few for intervals that miss "
            f"{100 * alpha:g} % of targets, which takes {math.ceil(1 / alpha) - 1:,}."
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
        return (
            f"All abstain: {examples:,} calibration examples cannot bound the rate of errors above {target_error:g} in "
            f"any share of predictions by {100 * target_risk:g} %{needs}."
        )
    widest = f"{-rule.threshold * units.std[0]:.4g}"
    if len(units.std) > 1:
        widest = f"{-rule.threshold:.4g} standard deviations of each target"
    return (
        f"Accepted is what has a predictive standard deviation of {widest} or less: {100 * rule.coverage:.1f} % of "
        f"{examples:,} calibration examples, {100 * rule.risk:.2f} % of them wrong by more than {target_error:g}; of "
        f"examples like those below {100 * target_risk:g} % at {100 * CONFIDENCE_LEVEL:g} % confidence."
    )
