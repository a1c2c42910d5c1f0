"""Refuses networks that run one batch-norm module at two places."""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


def forbid_shared_batch_norm(net: nn.Module) -> list[RemovableHandle]:
    """Installs hooks: a forward pass of ``net`` that runs a module with running statistics twice raises ValueError.

    During training each call normalises with the statistics of its own batch, but in evaluation all calls use the same
    running statistics, a mixture over the places, so that accuracy drops.

    Returns:
        the handles of the hooks; call ``remove()`` on each to end the check.
    """
    already_run: set[str] = set()
    running = False

    def begin(*_: Any) -> None:
        nonlocal running
        already_run.clear()
        running = True

    def end(*_: Any) -> None:
        # What runs after the forward pass is a part of it computed again for its gradient (torch.utils.checkpoint).
        nonlocal running
        running = False

    def check_first_run(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any) -> None:
            if running and name in already_run:
                raise ValueError(
                    f"network must run each module with running statistics once in a forward pass, but runs {name} "
                    f"({type(module).__name__}) again: in evaluation one mixture of statistics would serve both "
                    "places. Give each place a module of its own, or set allow_shared_statistics."
                )
            already_run.add(name)

        return hook

    handles = [net.register_forward_pre_hook(begin), net.register_forward_hook(end)]
    for name, module in net.named_modules():
        if getattr(module, "running_mean", None) is not None:
            handles.append(module.register_forward_pre_hook(check_first_run(name)))
    return handles
