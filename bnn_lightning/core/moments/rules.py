"""The contract of a moment rule: what a module makes of the mean and the variance of its inputs; and their table."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor, nn

from bnn_lightning.core.ops import kind_of


class Moments(NamedTuple):
    """Mean and variance of each element of a random tensor: two tensors of its shape."""

    mean: Tensor
    variance: Tensor


class MomentsError(ValueError):
    """A network through which means and variances cannot be propagated; the sentence says why, and what to do.

    Args:
        why: of what, "a network with fc (MultiheadAttention), for which there is no rule".
    """

    def __init__(self, why: str):
        super().__init__(f"draws must be weights, local or mean for {why}, got moments.")
        self.why = why


def called(name: str, module: nn.Module) -> str:
    """What a sentence calls a module: its name in the network, and its kind, that of the plain layer."""
    kind = getattr(module, "kind", type(module).__name__)
    return f"{name} ({kind})" if name else kind


Rule = Callable[[Moments], Moments]
"""From the moments of a module's input to those of its output; also an ``nn.Module``, whose buffers are kept."""

MakeRule = Callable[[Any], Rule]

_RULES: dict[type, MakeRule] = {}


def moment_rule(*kinds: type[nn.Module]) -> Callable[[MakeRule], MakeRule]:
    """A decorator for the function that gives the rule of a module: registers modules of these classes.

    The function takes the module, in eval mode, and returns a function from :class:`Moments` to :class:`Moments`, made
    of torch's functions without branches on values. It is asked once, so that what depends on weights alone is computed
    there. Elements of the input count as independent Gaussians. Where the variance is 0, the mean must be the module's
    output; inputs that are not random go through the module itself. Derived classes that do not change ``forward``
    belong to the kind.
    """

    def register(make_rule: MakeRule) -> MakeRule:
        _RULES.update(dict.fromkeys(kinds, make_rule))
        return make_rule

    return register


def has_rule(module: nn.Module) -> bool:
    """Whether there is a rule for modules like this one."""
    return kind_of(module, _RULES) is not None


def rule_of(module: nn.Module) -> Rule | None:
    """The rule of ``module``; None where there is none.

    Raises:
        MomentsError: when the module's settings have none.
    """
    kind = kind_of(module, _RULES)
    return None if kind is None else _RULES[kind](module)


def unchanged(x: Moments) -> Moments:
    """The rule of modules that give their input back."""
    return x
