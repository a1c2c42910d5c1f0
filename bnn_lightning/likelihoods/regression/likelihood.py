"""Regression, what likelihoods of numbers share: outputs are a location and a spread, a label is a number."""

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.bounded import bounded
from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.settings import check_positive
from bnn_lightning.likelihoods.base import Likelihood, Predictive, Uninformed
from bnn_lightning.likelihoods.regression.calibration import Calibration
from bnn_lightning.likelihoods.regression.checks import (
    calibration_caveats,
    check_outputs_and_targets,
    check_shape_of_targets,
)
from bnn_lightning.likelihoods.regression.components import log_density
from bnn_lightning.likelihoods.regression.decisions import decision_rule
from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.regression.noise import with_learnt_noise
from bnn_lightning.likelihoods.regression.predictions import NumberPredictions, Thresholds
from bnn_lightning.likelihoods.regression.scores import example_scores, ood_scores, summarised, target_scores
from bnn_lightning.likelihoods.regression.units import Units
from bnn_lightning.wording import counted

_ENOUGH = 30  # test examples; of fewer the bootstrap does not know what they might have been
_LOG_VARIANCES = (-16.0, 16.0)  # standard deviations from 0.0003 to 3,000 of the target's own
_LOG_EXTRA_DFS = (-4.0, 8.0)  # degrees of freedom from 2.02, below which variances are not finite, to 3,000
_FIRST_EXTRA_DFS = 8.0


@dataclass(frozen=True)
class Regression(Likelihood):
    """What :class:`Gaussian` and :class:`StudentT` share; methods and shapes are those of :class:`Likelihood`.

    Labels are floats ``(batch, targets)``. A network's outputs are the locations of the targets, standardised; then,
    where they are learnt, log variances of the standardised targets and logarithms of the degrees of freedom above 2:
    each ``(batch, targets)``. What is the same for all inputs is appended by :meth:`prepare`. The predictive is
    ``{"locations", "scales"}``, and ``"dfs"`` under :class:`StudentT`: ``(batch, samples, targets)``, in the units of
    the labels, as everything that is reported.
    """

    label_kind = "numbers"
    score = "skill"
    headline = ("rmse", "nll", "crps", "coverage_90")
    calibration_type = Calibration
    has_dfs: ClassVar[bool] = False

    targets: int = 1
    heteroscedastic: bool = False

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise ValueError(f"targets must be 1 or more, got {self.targets}.")
        check_positive(self._scale_name, self._given_scale)
        if self._given_scale is not None and self.heteroscedastic:
            raise ValueError(
                f"{self._scale_name} must be null where heteroscedastic is true, because the network gives it, got "
                f"{self._given_scale}."
            )
        object.__setattr__(self, "_units", Units.unknown(self.targets))

    @property
    def units(self) -> Units:
        """Names, means and standard deviations of the targets in training."""
        return self._units  # type: ignore[attr-defined]

    @property
    @abstractmethod
    def _given_scale(self) -> float | None:
        """The scale of the noise where it is given, in the units of the targets."""

    @property
    @abstractmethod
    def _scale_name(self) -> str:
        """The setting that gives it."""

    @property
    def _given_dfs(self) -> float | None:
        """The degrees of freedom where they are given; None where they are learnt, or infinite."""
        return None

    # The network

    def num_outputs(self, labels: int) -> int:
        return labels * (2 if self.heteroscedastic else 1)

    def prepare(self, net: nn.Module) -> nn.Module:
        learns_scale = not self.heteroscedastic and self._given_scale is None
        constants = [torch.zeros(self.targets)] if learns_scale else []
        if self.has_dfs and self._given_dfs is None:
            constants.append(torch.full((self.targets,), math.log(_FIRST_EXTRA_DFS)))
        return with_learnt_noise(net, torch.cat(constants)) if constants else net

    def for_data(self, description: Mapping[str, Any]) -> Self:
        units = Units.described(description)
        return self if units is None else self.in_units(units)

    def in_units(self, units: Units) -> Self:
        """The same likelihood of targets that a network predicts in units of their standard deviations.

        Raises:
            ValueError: when ``units`` are of another number of targets.
        """
        if len(units.names) != self.targets:
            raise ValueError(f"targets must be {len(units.names)}, as many as the data have, got {self.targets}.")
        other = copy.copy(self)
        object.__setattr__(other, "_units", units)
        return other

    def check(self, outputs: Tensor, y: Tensor, num_classes: int | None) -> None:
        check_outputs_and_targets(outputs, y, self.targets, self._columns, self.num_outputs(self.targets))

    @property
    def _columns(self) -> int:
        """Outputs that there must be, with those that :meth:`prepare` appends."""
        return self.targets * (1 + (self._given_scale is None) + (self.has_dfs and self._given_dfs is None))

    def _to_standard(self, y: Tensor) -> Tensor:
        check_shape_of_targets(y, self.targets)
        return self.units.standardised(y)

    def _standardised(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Locations, scales and degrees of freedom of standardised targets: ``(samples, batch, targets)`` each."""
        if outputs.shape[-1] != self._columns:
            raise ValueError(
                f"outputs must have {self._columns} columns, got {outputs.shape[-1]}; likelihood.prepare(network) "
                "appends to the network's own what is learnt beside it."
            )
        parts = list(outputs.to(at_least_float32(outputs)).split(self.targets, -1))
        locations, rest = parts[0], parts[1:]
        if self._given_scale is None:
            scales = (bounded(rest.pop(0), *_LOG_VARIANCES) / 2).exp()
        else:
            scales = (self._given_scale / locations.new_tensor(self.units.std)).expand_as(locations)
        if not self.has_dfs:
            return locations, scales, None
        given = self._given_dfs
        dfs = 2 + bounded(rest.pop(0), *_LOG_EXTRA_DFS).exp() if given is None else torch.full_like(locations, given)
        return locations, scales, dfs

    # Likelihood and predictive

    def nll(self, outputs: Tensor, y: Tensor) -> Tensor:
        return self._losses(outputs, y).sum(-1).mean() + sum(map(math.log, self.units.std))

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """-log p of each standardised target: ``(samples, batch, targets)``."""
        locations, scales, dfs = self._standardised(outputs)
        z = (self._to_standard(y).to(locations) - locations) / scales
        return scales.log() - log_density(z, dfs)

    def _mixture(self, outputs: Tensor) -> Mixture:
        locations, scales, dfs = self._standardised(outputs)
        mean, std = (locations.new_tensor(values) for values in (self.units.mean, self.units.std))
        parts = (mean + std * locations, std * scales, dfs)
        return Mixture(*(None if part is None else part.transpose(0, 1) for part in parts))  # type: ignore[arg-type]

    def predictive(self, outputs: Tensor) -> Predictive:
        return self._mixture(outputs).predictive()

    def summary(self, outputs: Tensor) -> Predictive:
        mixture = self._mixture(outputs)
        aleatoric, epistemic = (part.sqrt() for part in mixture.variances())
        return mixture.predictive() | {"mean": mixture.mean(), "aleatoric": aleatoric, "epistemic": epistemic}

    def exported(self, outputs: Tensor, calibration: Calibration | None = None) -> Predictive:
        """Mean and standard deviations ``(batch, targets)``, and the components of the mixture, in the targets' units.

        ``std`` is of both parts together, sqrt(aleatoric_std^2 + epistemic_std^2); ``calibrated_std``, where a
        calibration is, its multiple by the fitted factor.
        """
        mixture = self._mixture(outputs)
        aleatoric, epistemic = (part.sqrt() for part in mixture.variances())
        whole = {"mean": mixture.mean(), "aleatoric_std": aleatoric, "epistemic_std": epistemic, "std": mixture.std()}
        if calibration is not None:
            whole["calibrated_std"] = whole["std"] * calibration.std_scale.to(whole["std"])
        return whole | mixture.predictive()

    def log_prob(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        check_shape_of_targets(y, self.targets)
        return Mixture.of(predictive).log_prob(y)

    def example_score(self, predictive: Mapping[str, Tensor], y: Tensor) -> Tensor:
        """The skill: 1 - the mean over targets of the squared error over the target's variance in training."""
        errors = self.units.standardised(Mixture.of(predictive).mean()) - self._to_standard(y)
        return 1 - errors.square().mean(-1)

    def training_score(self, outputs: Tensor, y: Tensor) -> Tensor:
        locations = outputs[..., : self.targets].to(at_least_float32(outputs))
        return 1 - (locations - self._to_standard(y).to(locations)).square().mean()

    def uninformed(self, num_outputs: int) -> Uninformed:
        """Of a normal distribution with the targets' mean and variance in training."""
        return Uninformed(self.targets * 0.5 * math.log(2 * math.pi * math.e) + sum(map(math.log, self.units.std)), 0.0)

    def output_hessian(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Its expectation over y, which is diagonal: 1 / s^2 for a location, 1/2 for a log variance.

        Under Student's t (df + 1) / ((df + 3) s^2) and df / (2 (df + 3)): Lange et al. 1989, "Robust statistical
        modeling using the t distribution", appendix B. 0 for the degrees of freedom, which no layer gives.
        """
        _, scales, dfs = self._standardised(outputs)
        shrinkage = 1.0 if dfs is None else (dfs + 1) / (dfs + 3)
        parts = [shrinkage / scales.square()]
        if self._given_scale is None:
            parts.append(torch.full_like(scales, 0.5) if dfs is None else 0.5 * dfs / (dfs + 3))
        if self.has_dfs and self._given_dfs is None:
            parts.append(torch.zeros_like(scales))
        return torch.diag_embed(torch.cat(parts, -1))

    # Reports

    def _example_scores(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Calibration | None, complete: bool = True
    ) -> dict[str, Tensor]:
        check_shape_of_targets(y, self.targets)
        return example_scores(Mixture.of(predictive).double(), y.cpu().double(), calibration, complete)

    def metrics(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Calibration | None = None
    ) -> dict[str, float]:
        return summarised(self._example_scores(predictive, y, calibration))

    def metrics_of_examples(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Calibration | None = None
    ) -> Callable[[Tensor], dict[str, float]]:
        scores = self._example_scores(predictive, y, calibration)
        return lambda index: summarised(scores, index)

    def metrics_of_draws(
        self, outputs: Tensor, y: Tensor, calibration: Calibration | None = None
    ) -> Callable[[Tensor], dict[str, float]]:
        """Without CRPS and widths, whose errors from the draws would take a hundred times as long as they do."""
        mixture = self.mixture(outputs)
        return lambda counts: summarised(self._example_scores(mixture(counts), y, calibration, complete=False))

    def target_rows(self, predictive: Mapping[str, Tensor], y: Tensor) -> list[dict[str, Any]]:
        """A row of metrics for each target, see :func:`target_scores`."""
        return list(target_scores(self._example_scores(predictive, y, None), self.units))

    def caveats(
        self, predictive: Mapping[str, Tensor], y: Tensor, calibration: Calibration | None, class_names: Sequence[str]
    ) -> list[str]:
        caveats = [] if calibration is None else calibration_caveats(calibration)
        return caveats + ([f"tested on only {counted(len(y), 'example')}"] if len(y) < _ENOUGH else [])

    def ood_scores(self, summary: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return ood_scores(summary, self.units)

    def calibrate(self, predictive: Mapping[str, Tensor], y: Tensor) -> Calibration:
        check_shape_of_targets(y, self.targets)
        return Calibration.fit(Mixture.of(predictive), y)

    def thresholds(
        self, calibration: Calibration | None, target_risk: float, alpha: float, target_error: float | None = None
    ) -> Thresholds:
        return Thresholds.of(self.units, calibration, target_risk, alpha, target_error)

    def predictions(
        self,
        summary: Mapping[str, Tensor],
        class_names: Sequence[str],
        thresholds: Thresholds,
        files: Sequence[str] | None = None,
        labels: Tensor | None = None,
    ) -> NumberPredictions:
        return NumberPredictions.of(summary, self.units, thresholds, files, labels)

    def decision_rule(
        self, calibration: Calibration | None, target_risk: float, alpha: float, target_error: float | None = None
    ) -> str:
        return decision_rule(self.units, calibration, target_risk, alpha, target_error)
