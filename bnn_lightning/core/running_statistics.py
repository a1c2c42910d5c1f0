"""Running statistics of batch norm: networks that run one module at two places, and statistics computed anew."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from bnn_lightning.core.kernels.elementwise import at_least_float32
from bnn_lightning.core.layers import RandomLayer
from bnn_lightning.core.whole_network import evaluating


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


@torch.no_grad()
def recompute_running_statistics(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Sets the running statistics of batch norm to the means over ``batches`` of mean and variance of its inputs, each
    batch weighted by its size: the last may be a few images, whose statistics are mostly noise.

    Layers are as in eval mode, but those whose statistics are computed, which normalise by those of the batch, as in
    training. Batch norms that are in eval mode, such as frozen ones, keep theirs. In a run of several processes the
    means are over the batches of all.

    Args:
        net: the network.
        batches: inputs and labels.
    """
    norms: list[Any] = [each for each in net.modules() if each.training and _is_batch_norm_with_statistics(each)]
    if not norms:
        return
    sums = {norm: torch.zeros(2, len(norm.running_mean), dtype=torch.float64) for norm in norms}
    counts = dict.fromkeys(norms, 0)  # of values in a channel, in all places where a norm stands

    def add(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        by_channel = inputs[0].transpose(0, 1).flatten(1).to(at_least_float32(inputs[0]))
        count = by_channel.shape[1]
        sums[norm] += count * torch.stack([by_channel.mean(1), by_channel.var(1)]).double().cpu()
        counts[norm] += count

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    try:
        with evaluating(net):
            for norm in norms:
                norm.train()
            for x, _ in batches:
                net(x)
    finally:
        for handle in handles:
            handle.remove()
    for norm, total in sums.items():
        means = torch.cat([total.flatten(), total.new_tensor([counts[norm]])]).to(
            norm.running_mean.device, at_least_float32(norm.running_mean)
        )
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(means)
        mean, variance = (means[:-1] / means[-1]).view(2, -1)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)


def _is_batch_norm_with_statistics(module: nn.Module) -> bool:
    """Whether it is one, random or not. Instance norm has other statistics: of each image by itself."""
    kind = module.kind if isinstance(module, RandomLayer) else type(module).__name__
    return "BatchNorm" in kind and getattr(module, "running_mean", None) is not None
