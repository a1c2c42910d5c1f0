"""Scores of predicted numbers: errors, NLL, CRPS, coverage and width of intervals, the calibration curve.

:func:`example_scores` has what is known of each example, and :func:`summarised` makes metrics of some of them: so the
bootstrap over examples computes nothing twice.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from bnn_lightning.likelihoods.regression.calibration import Calibration
from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.regression.units import Units

COVERAGES = (50, 80, 90, 95)
"""Of the central intervals whose coverage and width are measured, in percent."""
CONFORMAL_COVERAGE = 90
CURVE_LEVELS = torch.arange(1, 20, dtype=torch.float64) / 20
"""Of the calibration curve: 0.05, 0.10, ..., 0.95."""


def example_scores(
    mixture: Mixture, y: Tensor, calibration: Calibration | None = None, complete: bool = True
) -> dict[str, Tensor]:
    """What is known of each example, by name: ``(examples,)`` or ``(examples, targets)``.

    Args:
        mixture: the predictives, in float64.
        y: the targets, ``(examples, targets)``.
        calibration: adds what is scaled by it, and its intervals.
        complete: whether CRPS and widths are among them, which cost much more than all others.
    """
    scores = {"y": y, "error": mixture.mean() - y, "std": mixture.std()}
    scores |= {"log_prob": mixture.log_prob(y), "pit": mixture.distribution(y)}
    if complete:
        scores["crps"] = mixture.crps(y)
        for coverage in COVERAGES:
            low, high = mixture.interval(coverage / 100)
            scores[f"width_{coverage}"] = high - low
    if calibration is not None:
        scaled = mixture.scaled(calibration.std_scale)
        scores |= {"log_prob_scaled": scaled.log_prob(y), "pit_scaled": scaled.distribution(y)}
        if complete:
            scores["crps_scaled"] = scaled.crps(y)
        half = calibration.conformal_factor(1 - CONFORMAL_COVERAGE / 100) * scores["std"]
        scores |= {"conformal_half_width": half, "conformal_hit": (scores["error"].abs() <= half).double()}
    return scores


def summarised(scores: Mapping[str, Tensor], index: Tensor | slice = slice(None)) -> dict[str, float]:
    """The metrics on the examples of ``index``; of several targets means over them, in their own units.

    RMSE, MAE and CRPS (in the units of the targets), R2, NLL (in nats an example, of all targets together), for each
    coverage the share of targets inside the central interval and the interval's mean width, the calibration error (the
    mean gap of the calibration curve), and the mean predictive standard deviation (sharpness). With a calibration also
    ``..._scaled`` and the conformal interval.

    Args:
        scores: of :func:`example_scores`.
        index: of the examples that count.
    """
    part = {name: values[index] for name, values in scores.items()}
    squares = part["error"].square()
    spread = (part["y"] - part["y"].mean(0)).square().sum(0)
    metrics = {
        "rmse": squares.mean().sqrt(),
        "mae": part["error"].abs().mean(),
        "r2": (1 - squares.sum(0) / torch.where(spread > 0, spread, math.nan)).mean(),  # of one row there is none
        "nll": -part["log_prob"].mean(),
    }
    if "crps" in part:
        metrics["crps"] = part["crps"].mean()
    for coverage in COVERAGES:
        metrics[f"coverage_{coverage}"] = covered(part["pit"], coverage)
        if f"width_{coverage}" in part:
            metrics[f"width_{coverage}"] = part[f"width_{coverage}"].mean()
    metrics |= {"calibration_error": calibration_error(part["pit"]), "sharpness": part["std"].mean()}
    if "log_prob_scaled" in part:
        metrics["nll_scaled"] = -part["log_prob_scaled"].mean()
        if "crps_scaled" in part:
            metrics["crps_scaled"] = part["crps_scaled"].mean()
        metrics[f"coverage_{CONFORMAL_COVERAGE}_scaled"] = covered(part["pit_scaled"], CONFORMAL_COVERAGE)
        metrics["calibration_error_scaled"] = calibration_error(part["pit_scaled"])
        metrics[f"conformal_coverage_{CONFORMAL_COVERAGE}"] = part["conformal_hit"].mean()
        metrics[f"conformal_width_{CONFORMAL_COVERAGE}"] = 2 * part["conformal_half_width"].mean()
    return {name: value.item() for name, value in metrics.items()}


def covered(pit: Tensor, coverage: float) -> Tensor:
    """The share of targets inside their central interval of ``coverage`` percent: a scalar.

    A target is inside where its probability integral transform is, so that no quantile is needed.

    Args:
        pit: P(Y <= y) of each target, ``(examples, targets)``.
        coverage: in percent.
    """
    return ((2 * pit - 1).abs() <= coverage / 100).double().mean()


def calibration_curve(pit: Tensor) -> Tensor:
    """For each of :data:`CURVE_LEVELS` the share of targets below the quantile of that level: ``(levels, targets)``.

    Of calibrated predictions it is the level itself (Kuleshov et al. 2018, arXiv:1807.00263).
    """
    return (pit.unsqueeze(0) <= CURVE_LEVELS.to(pit).view(-1, 1, 1)).double().mean(1)


def calibration_error(pit: Tensor) -> Tensor:
    """The mean over levels and targets of the gap between the calibration curve and the level: a scalar."""
    return (calibration_curve(pit) - CURVE_LEVELS.to(pit).unsqueeze(1)).abs().mean()


def ood_scores(summary: Mapping[str, Tensor], units: Units) -> dict[str, Tensor]:
    """Scores that should be higher for out-of-distribution inputs: ``(examples,)`` each.

    ``epistemic_std``, the epistemic standard deviation, and ``predictive_std``, that of the mixture; of several targets
    root mean squares, each in units of the target's standard deviation in training.
    """
    std = summary["mean"].new_tensor(units.std)
    epistemic, aleatoric = (summary[name] / std for name in ("epistemic", "aleatoric"))
    total = (epistemic.square() + aleatoric.square()).mean(-1).sqrt()
    return {"epistemic_std": epistemic.square().mean(-1).sqrt(), "predictive_std": total}


def target_scores(scores: Mapping[str, Tensor], units: Units) -> list[dict[str, float | str]]:
    """A row for each target: its name, RMSE, MAE, R2, CRPS, and coverage and width of the 90 % interval."""
    of_targets = ("y", "error", "std", "crps", "pit", "log_prob", *(f"width_{coverage}" for coverage in COVERAGES))
    shown = ("rmse", "mae", "r2", "crps", "coverage_90", "width_90")
    rows: list[dict[str, float | str]] = []
    for number, name in enumerate(units.names):
        column = slice(number, number + 1)
        own = {key: scores[key] if key == "log_prob" else scores[key][:, column] for key in of_targets}
        metrics = summarised(own)
        rows.append({"name": name} | {key: metrics[key] for key in shown})
    return rows
