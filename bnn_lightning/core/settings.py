"""Checks of the settings of methods, inferences and likelihoods, whose sentences begin with the setting."""

import math
from typing import Any, Literal, get_args, get_origin, get_type_hints


def check_positive(name: str, value: float | None, what: str = "number") -> None:
    """Raises ValueError unless ``value`` is None, or finite and above 0."""
    if value is not None and not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be a positive {what}, got {value}.")


def check_not_negative(name: str, value: float | None) -> None:
    """Raises ValueError unless ``value`` is None, or finite and 0 or more."""
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} must be a number from 0 up, got {value}.")


def check_finite(name: str, value: float) -> None:
    """Raises ValueError unless ``value`` is neither nan nor infinite."""
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number such as 0, got {value}.")


def check_share(name: str, value: float | None) -> None:
    """Raises ValueError unless ``value`` is None, or from 0 to below 1."""
    if value is not None and not 0 <= value < 1:
        raise ValueError(f"{name} must be from 0 to below 1, got {value}.")


def check_words(settings: Any) -> None:
    """Checks the settings of a dataclass whose type is a ``Literal``; the command line checks them too.

    Raises:
        ValueError: when a setting is not one of the words of its type.
    """
    for name, kind in get_type_hints(type(settings)).items():
        if get_origin(kind) is Literal and (value := getattr(settings, name)) not in get_args(kind):
            raise ValueError(f"{name} must be one of {', '.join(get_args(kind))}, got {value!r}.")
