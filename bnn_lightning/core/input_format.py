"""The memory format in which a network takes its images."""

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.memory import channels_last
from bnn_lightning.core.whole_network import evaluating

_KNOWN = "_takes_channels_last"


def in_format_for(net: nn.Module, x: Tensor) -> Tensor:
    """Images ``(batch, channels, height, width)`` in the memory format of ``net``; other inputs are unchanged.

    That is channels_last, in which convolutions are fastest, unless ``net`` flattens what they give by
    ``x.view(len(x), -1)``, which torch refuses of channels_last tensors: then images and weights are made contiguous. A
    pass of one image, in eval mode and without effect on torch's generators, finds it out when ``net`` has its first
    images.
    """
    if x.dim() != 4:
        return x
    if _KNOWN not in vars(net):
        takes = _takes_channels_last(net, x[:1])
        if not takes:
            for tensor in (*net.parameters(), *net.buffers()):
                tensor.data = _contiguous(tensor.data)
        setattr(net, _KNOWN, takes)
    return channels_last(x) if getattr(net, _KNOWN) else _contiguous(x)


def _contiguous(x: Tensor) -> Tensor:
    """``x``, contiguous also by its strides: of one channel they alone say which format is meant."""
    return x.contiguous().flatten().view(x.shape)


@torch.no_grad()
def _takes_channels_last(net: nn.Module, x: Tensor) -> bool:
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.random.fork_rng(devices), evaluating(net):
        try:
            net(channels_last(x.clone()))
        except RuntimeError as error:
            return "view size is not compatible" not in str(error)
        except Exception:  # of a network that takes no such images, or not one alone: the pass that is meant says why
            return True
    return True
