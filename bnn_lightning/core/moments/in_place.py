"""What a traced network changes in place: ``x += y``, ``x.relu_()`` and ``inplace=True``, and who uses it later."""

import inspect
import operator
from collections.abc import Callable
from functools import partialmethod
from typing import Any

import torch.nn.functional as F
from torch import fx, nn

from bnn_lightning.core.moments.calls import CALLS, MOVING
from bnn_lightning.core.moments.rules import MomentsError


def _iadd(x: Any, y: Any) -> Any:
    x += y
    return x


def _isub(x: Any, y: Any) -> Any:
    x -= y
    return x


def _imul(x: Any, y: Any) -> Any:
    x *= y
    return x


def _itruediv(x: Any, y: Any) -> Any:
    x /= y
    return x


# Functions of our own: fx writes operator.imul as a statement, which of a number would change the variable for all.
AUGMENTED: dict[Any, Callable[[Any, Any], Any]] = {
    _iadd: operator.add,
    _isub: operator.sub,
    _imul: operator.mul,
    _itruediv: operator.truediv,
}
"""By function that a trace has for ``x += y`` and such, what gives the same without a change of x."""
CALLS.update({function: CALLS[same] for function, same in AUGMENTED.items()})

_SAME_MEMORY: tuple[Any, ...] = (*MOVING, operator.getitem, F.dropout, F.dropout1d, F.dropout2d, F.dropout3d)
_SAME_MEMORY_MODULES = (
    *(nn.Identity, nn.Flatten, nn.Unflatten),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout),
)
"""Their results may be views of their input, or the input itself, in eval mode."""


class Value(fx.Proxy):
    """What stands for a tensor in a trace; unlike its base it notes ``x += y``, which changes a tensor, as such."""

    def _by(self, change: Callable[[Any, Any], Any], other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", change, (self, other), {})

    __iadd__ = partialmethod(_by, _iadd)
    __isub__ = partialmethod(_by, _isub)
    __imul__ = partialmethod(_by, _imul)
    __itruediv__ = partialmethod(_by, _itruediv)


def changes_its_input(node: fx.Node, whole: nn.Module) -> bool:
    """Whether ``node``, of the trace of ``whole``, computes in place."""
    if node.op == "call_module":
        return bool(getattr(whole.get_submodule(str(node.target)), "inplace", False))
    if node.op not in ("call_function", "call_method") or not isinstance(next(iter(node.args), None), fx.Node):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    if node.target in AUGMENTED or (name[-1:] == "_" and name[-2:] != "__"):
        return True
    try:
        given = inspect.signature(node.target).bind(*node.args, **node.kwargs)  # type: ignore[arg-type]
    except (TypeError, ValueError):  # a tensor's method, or a function without a signature: they change nothing
        return False
    return bool(given.arguments.get("inplace", False))


def follow_change(node: fx.Node, whole: nn.Module) -> None:
    """Makes what uses the input of ``node`` later use its result, which is what the input is then.

    Raises:
        MomentsError: when the same memory is used later under another name, such as a view of it.
    """
    changed = node.all_input_nodes[0]
    memory = _memory(changed, whole)
    for other in node.graph.nodes:
        if other is node:
            break
        is_used = any(node < user for user in other.users)
        if other is not changed and is_used and _memory(other, whole) is memory:
            raise MomentsError("a network that changes activations in place and uses them by another name, or a view")
    changed.replace_all_uses_with(node, lambda user: node < user)


def _memory(node: fx.Node, whole: nn.Module) -> fx.Node:
    """The node that made the memory in which the result of ``node`` may be."""
    while node.all_input_nodes and (
        isinstance(whole.get_submodule(str(node.target)), _SAME_MEMORY_MODULES)
        if node.op == "call_module"
        else node.target in _SAME_MEMORY
    ):
        node = node.all_input_nodes[0]
    return node
