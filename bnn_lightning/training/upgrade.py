"""Configs that earlier releases wrote, in the words of this one."""

from typing import Any

# Where classes that a config may name have moved.
_MODULES = {
    "bnn_lightning.methods": "bnn_lightning.core.methods",
    "bnn_lightning.posteriors": "bnn_lightning.core.posteriors",
    "bnn_lightning.schedules": "bnn_lightning.inference",
    "bnn_lightning.callbacks": "bnn_lightning.training.callbacks",
}


def upgraded(value: Any) -> Any:
    """A config, or a part of one, whose class paths are those of this release."""
    if isinstance(value, dict):
        return {key: upgraded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [upgraded(inner) for inner in value]
    if isinstance(value, str):
        for old, new in _MODULES.items():
            if value.startswith(f"{old}."):
                return f"{new}.{value.rpartition('.')[2]}"
    return value
