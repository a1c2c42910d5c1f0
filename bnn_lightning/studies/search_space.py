"""The space of a study's search, as Optuna has it."""

import json
import math
from collections.abc import Mapping
from itertools import product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution


def distribution_of(space: Any) -> BaseDistribution:
    """The Optuna distribution of a flag; choices are encoded as JSON, because Optuna takes only plain values."""
    if isinstance(space, list):
        return CategoricalDistribution([json.dumps(choice) for choice in space])
    kind = IntDistribution if all(isinstance(space[end], int) for end in ("low", "high")) else FloatDistribution
    return kind(space["low"], space["high"], log=bool(space.get("log")))


def all_values(search: Mapping[str, Any]) -> list[dict[str, Any]]:
    """All combinations of values that a search can draw; an empty list where they are infinite or too many."""
    choices = []
    for space in search.values():
        if isinstance(space, dict) and isinstance(distribution_of(space), FloatDistribution):
            return []
        choices.append(space if isinstance(space, list) else range(space["low"], space["high"] + 1))
    if math.prod(map(len, choices)) > 10_000:
        return []
    return [dict(zip(search, combination, strict=True)) for combination in product(*choices)]


def decoded(value: Any, space: BaseDistribution) -> Any:
    """The value of a flag that a value of Optuna's stands for."""
    return json.loads(value) if isinstance(space, CategoricalDistribution) else value


def encoded(value: Any, space: BaseDistribution) -> Any:
    """The value of Optuna's that stands for that of a flag."""
    return json.dumps(value) if isinstance(space, CategoricalDistribution) else value
