"""What ``/info`` says: classes, how examples are prepared, calibration, caveats, and what a request may hold."""

import math
from collections.abc import Mapping
from typing import Any

import bnn_lightning
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.deployment import Predictor
from bnn_lightning.preprocessing.images import ImagePreparation
from bnn_lightning.preprocessing.tables import RowPreparation
from bnn_lightning.serving.inputs import Kind, Limits
from bnn_lightning.serving.worker import Model

_RISKS = tuple(round(lead * 10**power, 6) for power in (-3, -2, -1) for lead in (1, 1.5, 2, 3, 5, 7))[:-2]
"""Target risks, from .1 % to 30 %, of which it is said from which confidence predictions are accepted."""


def kind_of(predictor: Predictor) -> Kind | None:
    """What a predictor takes; None where its checkpoint does not say how examples are prepared."""
    if isinstance(predictor.preparation, ImagePreparation):
        return "images"
    return "rows" if isinstance(predictor.preparation, RowPreparation) else None


def information(predictor: Predictor, record: Record, model: Model, limits: Limits) -> dict[str, Any]:
    """All of it, in plain values.

    Args:
        predictor: one of those that the workers have.
        record: of its checkpoint.
        model: with what it was loaded.
        limits: of a request.
    """
    return {
        "version": bnn_lightning.__version__,
        "name": (record.config or {}).get("name", record.path.stem),
        "checkpoint": record.path.name,
        "labels": predictor.likelihood.label_kind,
        "classes": list(predictor.class_names),
        "input": _input(predictor),
        "draws": predictor.draws,
        "samples": predictor.samples,
        "target_risk": model.target_risk,
        "alpha": model.alpha,
        "target_error": model.target_error,
        "calibration": _calibration(predictor),
        "rule": predictor.rule,
        "caveats": [] if record.training is None else record.training.caveats,
        "notes": list((record.data or {}).get("notes", ())),
        "max_bytes": limits.max_bytes,
        "max_examples": limits.max_examples,
        "max_pixels": limits.max_pixels,
    }


def _input(predictor: Predictor) -> Mapping[str, Any]:
    preparation = predictor.preparation
    if isinstance(preparation, ImagePreparation):
        names = ("channels", "size", "mean", "std", "fit", "background")
        return {"kind": "images"} | {name: getattr(preparation, name) for name in names}
    assert isinstance(preparation, RowPreparation)
    return {"kind": "rows", "columns": preparation.columns.record(), "missing": preparation.missing}


def _calibration(predictor: Predictor) -> dict[str, Any] | None:
    """Of classes, the temperature, and for some target risks the confidence from which predictions are accepted.

    A threshold is null where nothing is accepted.
    """
    calibration = predictor.calibration
    if calibration is None or predictor.likelihood.label_kind != "classes":
        return None
    rules = [(risk, calibration.accept_rule(risk)) for risk in _RISKS]
    return {
        "images": len(calibration.correct),
        "temperature": calibration.temperature,
        "accept": [
            {
                "target_risk": risk,
                "threshold": None if math.isinf(rule.threshold) else rule.threshold,
                "coverage": rule.coverage,
            }
            for risk, rule in rules
        ],
    }
