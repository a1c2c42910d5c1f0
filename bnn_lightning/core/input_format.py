"""The memory format in which a network takes its images."""

import copy

import torch
from torch import Tensor, nn

from bnn_lightning.core.kernels.memory import channels_last, is_channels_last
from bnn_lightning.core.whole_network import evaluating, sampling
from bnn_lightning.randomness import seeded

_KNOWN = "_takes_channels_last"
_MESSAGES = ("view size is not compatible", "Cannot view a tensor with shape")


def in_format_for(net: nn.Module, x: Tensor) -> Tensor:
    """Images ``(batch, channels, height, width)`` in the memory format of ``net``; other inputs are unchanged.

    That is channels_last, in which convolutions are fastest, unless ``net`` divides or flattens what they give by
    ``view``, which torch refuses of channels_last tensors: then images and weights are made contiguous. A pass of two
    copies of an image, through a copy of ``net`` in eval mode, finds it out when ``net`` has its first images.
    """
    if x.dim() != 4:
        return x
    takes = getattr(net, _KNOWN, None)
    if takes is None and len(x):
        takes = _takes_channels_last(net, x[:1])
        if takes is not None:
            setattr(net, _KNOWN, takes)
    if takes is not False:
        return channels_last(x)
    with torch.inference_mode(False):  # tensors that are made in it cannot be trained
        for tensor in (*net.parameters(), *net.buffers()):
            if is_channels_last(tensor):  # also again, where somebody has changed the format since
                tensor.data = _contiguous(tensor.data)
    return _contiguous(x)


def _contiguous(x: Tensor) -> Tensor:
    """``x``, contiguous also by its strides: of one channel they alone say which format is meant."""
    return x.contiguous().flatten().view(x.shape)


def _takes_channels_last(net: nn.Module, x: Tensor) -> bool | None:
    """Whether a pass of channels_last images succeeds; None where it fails for another reason."""
    with torch.inference_mode(False), torch.no_grad(), seeded(0, x.device):
        trial = _copy_of(net)
        with evaluating(trial), sampling(trial, False):
            try:
                trial(channels_last(x.repeat(2, 1, 1, 1)))  # one image may be viewed where two may not
            except RuntimeError as error:
                return False if any(message in str(error) for message in _MESSAGES) else None
            except Exception:  # of a network that takes no such images: the pass that is meant says why
                return None
    return True


def _copy_of(net: nn.Module) -> nn.Module:
    """A copy, so that a layer which sets itself by its first batch does not do so by the trial's; not compiled."""
    net = getattr(net, "_orig_mod", net)
    try:
        return copy.deepcopy(net)
    except Exception:  # of a network that holds what cannot be copied
        return net
