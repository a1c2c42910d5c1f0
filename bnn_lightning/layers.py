"""The module that earlier releases had layers and the functions over them in; now they are those of bnn_lightning."""

import warnings
from typing import Any

import bnn_lightning


def __getattr__(name: str) -> Any:
    if name.startswith("_") or name not in dir(bnn_lightning):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"write `from bnn_lightning import {name}`.", FutureWarning, stacklevel=2)
    return getattr(bnn_lightning, name)
