"""Element-wise functions that inductor makes one loop of, where that is wanted: convolutions stay as torch has them.

Compiling a whole network was measured too: its pooling came out slower than torch's, by more than the rest gained.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch

_wanted: ContextVar[bool] = ContextVar("compiling", default=False)


def compiling(enabled: bool) -> AbstractContextManager[None]:
    """Inside the ``with``, whether :func:`fused` gives compiled functions, and noise on a CPU is Philox's.

    Inside a graph that someone else compiles it changes nothing.
    """
    return nullcontext() if torch.compiler.is_compiling() or _wanted.get() == enabled else _changed(enabled)


@contextmanager
def _changed(enabled: bool) -> Iterator[None]:
    token = _wanted.set(enabled)
    try:
        yield
    finally:
        _wanted.reset(token)


def is_compiling() -> bool:
    """Whether we compile; not so inside a graph that someone else compiles."""
    return not torch.compiler.is_compiling() and _wanted.get()


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, or where that is wanted its compiled form, for tensors of any length.

    Nothing falls back to eager: without a C++ compiler the first call raises torch's error.
    """
    return _compiled(function) if is_compiling() else function


def check_compiler(device: torch.device) -> None:
    """Compiles and runs something small.

    Raises:
        ValueError: where that fails, with the reason.
    """
    with compiling(True):
        try:
            fused(_double)(torch.ones(8, device=device))
        except Exception as error:  # inductor has no one kind of error for a compiler that is missing or too old
            reason = " ".join(str(error).split()).split(" Set TORCH")[0][:200]
            raise ValueError(
                f"compile must be false on this machine, where inductor cannot compile: {reason}; "
                "on a CPU it needs a C++ compiler such as g++ (Debian: apt install g++)."
            ) from error


def _double(x: torch.Tensor) -> torch.Tensor:
    return x + x


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # By default inductor writes what has taken many operations to memory, though the same loop reads it: for noise more
    # bytes than its result has.
    options: dict[str, Any] = {"realize_opcount_threshold": 10**6, "realize_reads_threshold": 10**6}
    return torch.compile(function, fullgraph=True, dynamic=True, options=options)
