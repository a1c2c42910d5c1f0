"""NumberPredictions: means of targets, their uncertainty, intervals, and what to accept by thresholds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from bnn_lightning.likelihoods.predictions import Predictions, as_array, names_array, six_digits
from bnn_lightning.likelihoods.regression.calibration import Calibration, confidence
from bnn_lightning.likelihoods.regression.mixture import Mixture
from bnn_lightning.likelihoods.regression.units import Units

_NUMBERS = ("mean", "aleatoric_std", "epistemic_std", "std", "low", "high", "conformal_low", "conformal_high")


@dataclass(frozen=True)
class Thresholds:
    """What a calibration says about predicted numbers, for given rates; found once.

    Args:
        alpha: the intervals have the probability 1 - alpha.
        conformal: the factor on the standard deviation of each target, ``(targets,)``; None without a calibration.
        accept: the confidence from which predictions are accepted, see
            :func:`bnn_lightning.likelihoods.regression.calibration.confidence`; None where nothing says what a mistake
            is, or without a calibration.
    """

    alpha: float
    conformal: Tensor | None = None
    accept: float | None = None

    @classmethod
    def of(
        cls,
        units: Units,
        calibration: Calibration | None,
        target_risk: float,
        alpha: float,
        target_error: float | None,
    ) -> Self:
        """Those of a calibration.

        Args:
            units: of the targets.
            calibration: of samples drawn in the same way, or None.
            target_risk, target_error: see :meth:`Calibration.accept_rule`; without an error nothing is decided.
            alpha: see :meth:`Calibration.conformal_factor`.
        """
        if calibration is None:
            return cls(alpha)
        accept = None
        if target_error is not None:
            target_stds = calibration.stds.new_tensor(units.std)
            accept = calibration.accept_rule(target_risk, target_error, target_stds).threshold
        return cls(alpha, calibration.conformal_factor(alpha), accept)


@dataclass(frozen=True)
class NumberPrediction:
    """What is said of one example; each field is one of :class:`NumberPredictions`, with the targets along its axis."""

    target_names: tuple[str, ...]
    mean: np.ndarray
    aleatoric_std: np.ndarray
    epistemic_std: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    conformal_low: np.ndarray | None
    conformal_high: np.ndarray | None
    accepted: bool | None
    file: str | None

    def __repr__(self) -> str:
        parts = [
            f"{name} {mean:.5g} (aleatoric {aleatoric:.3g}, epistemic {epistemic:.3g}), {low:.5g} to {high:.5g}"
            for name, mean, aleatoric, epistemic, low, high in zip(
                self.target_names, self.mean, self.aleatoric_std, self.epistemic_std, self.low, self.high, strict=True
            )
        ]
        decision = [] if self.accepted is None else ["accept" if self.accepted else "abstain"]
        return ("" if self.file is None else f"{self.file}: ") + "; ".join([*parts, *decision])


@dataclass(frozen=True, eq=False, repr=False)
class NumberPredictions(Predictions[NumberPrediction]):
    """What is said of n examples, in the units of the targets: ``(n, targets)`` each, float64.

    Args:
        target_names: one for each target.
        mean: of the predictive.
        aleatoric_std, epistemic_std, std: its standard deviation by noise, by weights, and of both together.
        low, high: ends of the central interval of probability 1 - alpha of the predictive.
        conformal_low, conformal_high: ends of the conformal interval; None without a calibration.
        accepted: whether the prediction is accepted at the target risk, ``(n,)``, bool; None where nothing is decided.
    """

    target_names: tuple[str, ...]
    mean: np.ndarray
    aleatoric_std: np.ndarray
    epistemic_std: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray
    conformal_low: np.ndarray | None
    conformal_high: np.ndarray | None
    accepted: np.ndarray | None

    @classmethod
    def of(
        cls,
        summary: Mapping[str, Tensor],
        units: Units,
        thresholds: Thresholds,
        files: Sequence[str] | None = None,
        labels: Tensor | None = None,
    ) -> Self:
        """Those of a summary.

        Args:
            summary: of the examples, see :meth:`bnn_lightning.Likelihood.summary`.
            units: of the targets.
            thresholds: of samples drawn in the same way.
            files: names of the examples.
            labels: their targets, nan where one is not known.
        """
        mixture = Mixture.of(summary).double()
        mean, std = mixture.mean(), mixture.std()
        aleatoric, epistemic = (part.sqrt() for part in mixture.variances())
        conformal: tuple[np.ndarray | None, np.ndarray | None] = (None, None)
        if thresholds.conformal is not None:
            half = thresholds.conformal * std
            conformal = as_array(mean - half), as_array(mean + half)
        accepted = None
        if thresholds.accept is not None:
            accepted = as_array(confidence(std, std.new_tensor(units.std)) >= thresholds.accept)
        intervals = mixture.interval(1 - thresholds.alpha)
        parts = (mean, aleatoric, epistemic, std, *intervals)
        numbers: Any = dict(zip(_NUMBERS, (*map(as_array, parts), *conformal), strict=True))
        known = None if labels is None else as_array(labels)
        return cls(names_array(files), known, tuple(units.names), **numbers, accepted=accepted)

    def single(self, index: int) -> NumberPrediction:
        fields = {name: getattr(self, name) for name in _NUMBERS}
        numbers: Any = {name: None if values is None else values[index] for name, values in fields.items()}
        return NumberPrediction(
            self.target_names,
            **numbers,
            accepted=None if self.accepted is None else bool(self.accepted[index]),
            file=None if self.files is None else self.files[index],
        )

    def columns(self) -> dict[str, list]:
        """Of the table of ``bnn predict``: ``file``, where known; then for each target what the fields are called.

        Where several targets are, their names stand before those of the columns. Where targets are known, each has a
        ``label``. With a target error the ``decision`` is ``accept`` or ``abstain``.
        """
        columns = self._file_column()
        prefixes = [""] if len(self.target_names) == 1 else [f"{name} " for name in self.target_names]
        for target, prefix in enumerate(prefixes):
            for name in _NUMBERS:
                if (values := getattr(self, name)) is not None:
                    columns[f"{prefix}{name}"] = six_digits(values[:, target])
            if self.labels is not None:
                known = six_digits(self.labels[:, target])
                columns[f"{prefix}label"] = [None if label != label else label for label in known]
        if self.accepted is not None:
            columns["decision"] = ["accept" if accepted else "abstain" for accepted in self.accepted]
        return columns

    def kinds(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, type]:
        return {name: str if name in ("file", "decision") else float for name in columns}
