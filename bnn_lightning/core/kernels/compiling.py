"""Switches compiled code on and off: element-wise functions that inductor fuses into one loop.

Only element-wise functions are compiled. Compiling whole networks was measured and is slower: inductor's pooling loses
more time than the fused loops gain (docs/performance.md).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from typing import Any

import torch

_SMALL = 2**13  # elements

_enabled: ContextVar[bool] = ContextVar("compiling", default=False)


def compiling(enabled: bool) -> AbstractContextManager[None]:
    """A context in which :func:`fused` returns compiled functions, and noise on a CPU comes from Philox, or not.

    Inside a graph that the caller compiles with torch.compile it has no effect.
    """
    return nullcontext() if torch.compiler.is_compiling() or _enabled.get() == enabled else _switched(enabled)


@contextmanager
def _switched(enabled: bool) -> Iterator[None]:
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def is_compiling() -> bool:
    """Whether :func:`compiling` is on; always false inside a graph that the caller compiles with torch.compile."""
    return not torch.compiler.is_compiling() and _enabled.get()


def are_small(*tensors: torch.Tensor) -> bool:
    """Whether plain operations on all of ``tensors`` are faster than an autograd function of ours, which saves memory.

    Such a function costs some 0.1 ms of Python's time, as much as all elements of a small layer.
    """
    return sum(x.numel() for x in tensors) <= _SMALL and not torch.compiler.is_compiling() and not _enabled.get()


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled for tensors of any length while :func:`compiling` is on, otherwise ``function`` itself.

    There is no fallback: without a C++ compiler the first call of a compiled function raises torch's error.
    """
    return _compiled(function) if is_compiling() else function


def check_compiler(device: torch.device) -> None:
    """Compiles and runs a small function on ``device``.

    Raises:
        ValueError: when that fails, with the reason.
    """
    with compiling(True):
        try:
            fused(_double)(torch.ones(8, device=device))
        except Exception as error:  # inductor raises many types of error if the compiler is missing or too old
            reason = " ".join(str(error).split()).split(" Set TORCH")[0][:200]
            raise ValueError(
                f"compile must be false on this machine, where inductor cannot compile: {reason}; "
                "on a CPU it needs a C++ compiler such as g++ (Debian: apt install g++)."
            ) from error


def _double(x: torch.Tensor) -> torch.Tensor:
    return x + x


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # By default inductor stores intermediate results of many operations in memory, although the same loop reads them;
    # for Philox noise these would take more memory traffic than the result.
    options: dict[str, Any] = {"realize_opcount_threshold": 10**6, "realize_reads_threshold": 10**6}
    return torch.compile(function, fullgraph=True, dynamic=True, options=options)
