"""Which names are public, and which of them a reference leaves out."""

import importlib
import pkgutil
from collections.abc import Iterable
from typing import Any

DOORS = (
    "bnn_lightning",
    "bnn_lightning.acquisition",
    "bnn_lightning.cli",
    "bnn_lightning.data",
    "bnn_lightning.deployment",
    "bnn_lightning.inference",
    "bnn_lightning.likelihoods",
    "bnn_lightning.networks",
    "bnn_lightning.studies",
)
"""The packages whose ``__all__`` is public; what several of them give is one object, documented once."""


def public_objects() -> dict[str, Any]:
    """Every public object by its full name, in the order of the doors."""
    modules = {door: importlib.import_module(door) for door in DOORS}
    return {f"{door}.{name}": getattr(module, name) for door, module in modules.items() for name in module.__all__}


def left_out(documented: Iterable[str]) -> list[str]:
    """Public names whose object is documented by none of its names.

    Args:
        documented: full names of what the reference has; constants by the module that says what they are.
    """
    described = {id(pkgutil.resolve_name(name)) for name in documented}
    return [name for name, obj in public_objects().items() if id(obj) not in described]
