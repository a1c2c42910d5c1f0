"""ClassPredictions: probabilities of classes, their uncertainty, and what to make of them by thresholds."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from torch import Tensor

from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.likelihoods.categorical.classes import distinct_names, names_of_classes
from bnn_lightning.likelihoods.predictions import Predictions, as_array, names_array, six_decimals, six_digits

MOST_CLASSES = 64
"""Classes up to which a table has a column for the probability of each; of more it has those of the most probable."""

TOP = 5
"""How many of them."""

_UNCERTAINTIES = ("entropy", "mutual_information", "aleatoric", "epistemic")


@dataclass(frozen=True)
class Thresholds:
    """What a calibration says about predictions of classes, for given rates; found once.

    Args:
        temperature: see :func:`bnn_lightning.likelihoods.categorical.calibration.scaled`.
        accept: the confidence from which predictions are accepted; infinite where none is.
        in_set: the probability from which a class is in the prediction set.
    """

    temperature: float
    accept: float
    in_set: float

    @classmethod
    def of(cls, calibration: Calibration | None, target_risk: float, alpha: float) -> Self | None:
        """Those of a calibration; None without one.

        Args:
            calibration: of samples drawn in the same way, or None.
            target_risk: see :meth:`Calibration.accept_rule`.
            alpha: see :meth:`Calibration.prediction_set_threshold`.
        """
        if calibration is None:
            return None
        rule = calibration.accept_rule(target_risk)
        return cls(calibration.temperature, rule.threshold, calibration.prediction_set_threshold(alpha))


@dataclass(frozen=True)
class ClassPrediction:
    """What is said of one example; each field is one of :class:`ClassPredictions`.

    ``name`` is that of the predicted class, ``predicted`` its number, ``confidence`` its probability; ``probabilities``
    are by the names of the classes; ``prediction_set`` has names, the most probable first.
    """

    name: str
    predicted: int
    confidence: float
    probabilities: dict[str, float]
    entropy: float
    mutual_information: float
    aleatoric: float
    epistemic: float
    calibrated_confidence: float | None
    accepted: bool | None
    prediction_set: tuple[str, ...] | None
    file: str | None

    def __repr__(self) -> str:
        whole = f"{self.file}: {self.name}" if self.file is not None else self.name
        parts = f"{whole} {self.confidence:.4f}, entropy {self.entropy:.4g} of which {self.mutual_information:.3g} MI"
        if self.accepted is None:
            return parts
        classes = " | ".join(self.prediction_set or ())
        return f"{parts}, {'accept' if self.accepted else 'abstain'}, set {classes}"


@dataclass(frozen=True, eq=False, repr=False)
class ClassPredictions(Predictions[ClassPrediction]):
    """What is said of n examples of K classes. Arrays are float64 unless said otherwise; entropies are in nats.

    Args:
        class_names: one for each class.
        predicted: the number of the most probable class, ``(n,)``, int64.
        probabilities: of the predictive, the mean over samples, ``(n, K)``.
        entropy, mutual_information, aleatoric, epistemic: see
            :func:`bnn_lightning.likelihoods.categorical.predictive.summary`, ``(n,)``.
        calibrated_confidence: the probability of the predicted class at the calibrated temperature, ``(n,)``; this and
            what follows is None without a calibration.
        accepted: whether the prediction is accepted at the target risk, ``(n,)``, bool.
        in_set: whether each class is in the prediction set, ``(n, K)``, bool. The predicted class always is, so that no
            set is empty; that can only lower the rate at which sets miss the label.
    """

    class_names: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray
    entropy: np.ndarray
    mutual_information: np.ndarray
    aleatoric: np.ndarray
    epistemic: np.ndarray
    calibrated_confidence: np.ndarray | None
    accepted: np.ndarray | None
    in_set: np.ndarray | None

    @classmethod
    def of(
        cls,
        summary: Mapping[str, Tensor],
        class_names: Sequence[str],
        thresholds: Thresholds | None,
        files: Sequence[str] | None = None,
        labels: Tensor | None = None,
    ) -> Self:
        """Those of a summary.

        Args:
            summary: of the examples, see :func:`bnn_lightning.likelihoods.categorical.predictive.summary`.
            class_names: as far as they are known.
            thresholds: of samples drawn in the same way, or None.
            files: names of the examples.
            labels: their classes, -1 where one is not known.
        """
        log_probs = summary["log_probs"].double().cpu()
        probs = log_probs.exp()
        confidence, predicted = probs.max(-1)
        calibrated = accepted = in_set = None
        if thresholds is not None:
            calibrated = as_array(scaled(log_probs, thresholds.temperature).exp().amax(-1))
            accepted = as_array(confidence >= thresholds.accept)
            in_set = as_array((probs >= thresholds.in_set).scatter_(-1, predicted.unsqueeze(-1), True))
        uncertainties: Any = {name: as_array(summary[name]) for name in _UNCERTAINTIES}
        return cls(
            names_array(files),
            None if labels is None else as_array(labels),
            tuple(names_of_classes(class_names, probs.shape[-1])),
            as_array(predicted),
            as_array(probs),
            **uncertainties,
            calibrated_confidence=calibrated,
            accepted=accepted,
            in_set=in_set,
        )

    @property
    def names(self) -> list[str]:
        """The name of each predicted class."""
        return [self.class_names[number] for number in self.predicted]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of each predicted class, ``(n,)``."""
        return self.probabilities.max(-1)

    @property
    def prediction_sets(self) -> list[tuple[str, ...]] | None:
        """The names of the classes in each prediction set, the most probable first; None without a calibration."""
        return None if self.in_set is None else [self._set(index) for index in range(len(self))]

    def single(self, index: int) -> ClassPrediction:
        uncertainties: Any = {name: float(getattr(self, name)[index]) for name in _UNCERTAINTIES}
        number = int(self.predicted[index])
        probabilities = self.probabilities[index].tolist()
        return ClassPrediction(
            self.class_names[number],
            number,
            probabilities[number],
            dict(zip(distinct_names(self.class_names), probabilities, strict=True)),
            **uncertainties,
            calibrated_confidence=None
            if self.calibrated_confidence is None
            else float(self.calibrated_confidence[index]),
            accepted=None if self.accepted is None else bool(self.accepted[index]),
            prediction_set=None if self.in_set is None else self._set(index),
            file=None if self.files is None else self.files[index],
        )

    def counts(self) -> dict[str, int]:
        """Of the classes that were predicted, by their names."""
        return dict(Counter(self.class_names[number] for number in self.predicted.tolist()))

    def columns(self) -> dict[str, list]:
        r"""Of the table of ``bnn predict``.

        ``file``, where known; ``class`` (the number of the predicted class), ``name`` (its name), ``confidence`` (its
        probability), and the uncertainties. With a calibration also ``calibrated_confidence``, ``decision`` (``accept``
        or ``abstain``) and ``set``: names, the most probable first, with a | between them; one in a name has a
        backslash before it. Where labels are known ``label`` and ``label_name``. Last ``probability/NAME`` for each
        class; of more than 64 in their place ``top1``, ``top1_probability`` to those of ``top5``.
        """
        columns = self._file_column() | {"class": self.predicted.tolist(), "name": self.names}
        columns["confidence"] = six_decimals(self.confidence)
        columns |= {name: six_digits(getattr(self, name)) for name in _UNCERTAINTIES}
        if self.calibrated_confidence is not None and self.accepted is not None:
            columns["calibrated_confidence"] = six_decimals(self.calibrated_confidence)
            columns["decision"] = ["accept" if accepted else "abstain" for accepted in self.accepted]
            sets = self.prediction_sets or []
            columns["set"] = [" | ".join(name.replace("|", r"\|") for name in names) for names in sets]
        if self.labels is not None:
            known = [None if label < 0 else label for label in self.labels.tolist()]
            columns["label"] = known
            columns["label_name"] = [None if label is None else self.class_names[label] for label in known]
        if len(self.class_names) <= MOST_CLASSES:
            names = [f"probability/{name}" for name in distinct_names(self.class_names)]
            return columns | {
                name: six_decimals(values) for name, values in zip(names, self.probabilities.T, strict=True)
            }
        order = np.argsort(-self.probabilities, axis=-1, kind="stable")
        for place in range(TOP):
            top = order[:, place]
            columns[f"top{place + 1}"] = [self.class_names[number] for number in top]
            columns[f"top{place + 1}_probability"] = six_decimals(self.probabilities[np.arange(len(top)), top])
        return columns

    def kinds(self, columns: Mapping[str, Sequence[Any]]) -> dict[str, type]:
        return super().kinds(columns) | ({"label": int} if self.labels is not None else {})

    def _set(self, index: int) -> tuple[str, ...]:
        probabilities = self.probabilities[index]
        included = self.in_set[index]  # type: ignore[index]
        by_probability = np.argsort(-probabilities, kind="stable")
        return tuple(self.class_names[number] for number in by_probability if included[number])
