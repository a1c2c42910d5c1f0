"""The base class of our autograd functions."""

import inspect
from typing import Any

import torch


class Function(torch.autograd.Function):
    """An autograd function whose signature is read once.

    torch asks for the signature of ``forward`` at each call, which takes longer than the arithmetic of a small layer.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "forward" in vars(cls):
            cls.forward.__signature__ = inspect.signature(cls.forward)  # type: ignore[attr-defined]
