"""Figures of a test where labels are numbers, as PNG files beside the tables."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bnn_lightning.data import DataSource, Table
from bnn_lightning.likelihoods.regression import Regression
from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.reporting import figures
from bnn_lightning.training.module import BayesianModule

_BEYOND = 0.25  # how far a curve over the only feature goes beyond the data, as a share of their range


def draw_regression_tests(stem: Path, model: BayesianModule, data: DataSource) -> list[Path]:
    """Writes the figures of the last test of ``model`` on ``data`` to ``stem_FIGURE.png``.

    Prediction against truth, residuals, the calibration curve; histograms of the standard deviations where there are
    examples from elsewhere; and for a table intervals over the feature that the prediction depends on most.
    """
    likelihood: Any = model.likelihood
    names = list(data.test_sets)
    test = model.tested[names[0]]
    y, mixture = test.labels.double(), Mixture.of(test.summary).double()
    written: list[Path] = []

    def path(name: str) -> Path:
        written.append(stem.with_name(f"{stem.name}_{name}.png"))
        return written[-1]

    figures.predicted_and_true(path("predicted"), mixture, y, likelihood.units.names)
    figures.residuals(path("residuals"), mixture, y, likelihood.units.names)
    pits = {"as predicted": mixture.distribution(y)}
    calibration = model.calibration.get(model.draws)
    if calibration is not None:
        pits["scaled"] = mixture.scaled(calibration.std_scale).distribution(y)
    figures.quantile_calibration(path("calibration"), pits)
    scores = {name: likelihood.ood_scores(model.tested[name].summary) for name in names}
    outside = {name.removeprefix("ood/"): scores[name] for name in names if name.startswith("ood/")}
    if outside:
        labels = {"epistemic_std": "epistemic std / target's std", "predictive_std": "predictive std / target's std"}
        figures.score_histograms(path("ood"), (names[0], scores[names[0]]), outside, labels)
    if isinstance(data, Table):
        _draw_over_feature(path("intervals"), model, likelihood, data, (y, mixture))
    return written


def _draw_over_feature(
    path: Path, model: BayesianModule, likelihood: Regression, data: Table, test: tuple[Tensor, Mixture]
) -> None:
    """Over the feature whose values have the largest correlation with the predicted first target."""
    y, mixture = test
    standardised = data.test.features.double()
    centred, mean = standardised - standardised.mean(0), mixture.mean()[:, 0] - mixture.mean()[:, 0].mean()
    correlations = (mean @ centred / (centred.norm(dim=0) * mean.norm()).clamp_min(1e-30)).abs()
    chosen = int(correlations.argmax())

    def in_units(values: Tensor) -> Tensor:
        return data.mean[chosen] + data.std[chosen] * values

    curve = None
    if standardised.shape[1] == 1:
        low, high = standardised.min().item(), standardised.max().item()
        beyond = _BEYOND * (high - low)
        x = torch.linspace(low - beyond, high + beyond, 300).unsqueeze(1)
        outputs = model.sampler(model.test_samples)(x.to(model.device)).cpu()
        curve = (in_units(x[:, 0].double()), Mixture.of(likelihood.predictive(outputs)).double())
    names = (data.columns.names[chosen], likelihood.units.names[0])
    figures.intervals_over_feature(path, (in_units(standardised[:, chosen]), y[:, 0]), curve, names, mixture)
