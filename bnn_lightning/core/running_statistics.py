"""Refuses networks that run one batch-norm module at two places."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


def forbid_shared_batch_norm(net: nn.Module) -> list[RemovableHandle]:
    """Has ``net`` raise ValueError where a forward pass runs a module with running statistics more than once.

    In training each run normalises with its own batch; in evaluation all of them with one mixture of their statistics,
    so that accuracy falls from training to evaluation. Gives the hooks that look, to be removed.
    """
    seen: set[str] = set()

    def look(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any) -> None:
            if name in seen:
                raise ValueError(
                    f"network must run each module with running statistics once in a forward pass, but runs {name} "
                    f"({type(module).__name__}) again: in evaluation one mixture of statistics would serve both "
                    "places. Give each place a module of its own, or set allow_shared_statistics."
                )
            seen.add(name)

        return hook

    hooks = [net.register_forward_pre_hook(lambda *_: seen.clear())]
    for name, module in net.named_modules():
        if getattr(module, "running_mean", None) is not None:
            hooks.append(module.register_forward_pre_hook(look(name)))
    return hooks
