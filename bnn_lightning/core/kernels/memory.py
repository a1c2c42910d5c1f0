"""Memory formats (channels_last), views, and the settings of glibc's allocator."""

import ctypes
import os
import platform

import torch
from torch import Tensor

# The parameters of glibc's mallopt(3): their numbers in malloc.h, their values.
_MALLOPT = {
    "M_MMAP_THRESHOLD": (-3, 2**30),  # blocks below 1 GiB come from the heap
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # which gives memory back when 2 GiB at its top are free
    "M_TOP_PAD": (-2, 2**28),  # and grows by 256 MiB at least
    "M_ARENA_MAX": (-8, 1),  # and is one for all threads, backward's too: other heaps end at 64 MiB
}
_OTHERS = ("jemalloc", "tcmalloc", "mimalloc")


def keep_freed_memory() -> bool:
    """Has glibc keep freed blocks for the next ones; False, and nothing done, where it is not the allocator.

    By default every block of 32 MiB or more is mapped from the operating system and page-faulted anew at each use,
    which took a fifth of a training step of 3Conv3FC under LRT. To be called once, before tensors are made. What a
    process has freed counts as its resident memory from then on. Left alone where another allocator is preloaded, or
    where the environment has settings for glibc's (MALLOC_..., GLIBC_TUNABLES).
    """
    environment = os.environ
    is_set = "glibc.malloc" in environment.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in environment
    )
    is_other = any(name in environment.get("LD_PRELOAD", "") for name in _OTHERS)
    if platform.libc_ver()[0] != "glibc" or is_set or is_other:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [mallopt(parameter, value) for parameter, value in _MALLOPT.values()]
    return 0 not in done


def channels_last(x: Tensor) -> Tensor:
    """Images ``(batch, channels, height, width)`` in the memory format that convolutions are fastest in."""
    if x.dim() != 4:
        return x
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # With one channel both formats are the same memory; only strides tell the first convolution which is meant.
    batch, _, height, width = x.shape
    return x.contiguous().view(batch, height, width, 1).permute(0, 3, 1, 2)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` is images that convolutions take for channels_last ones."""
    return x.dim() == 4 and x.stride(1) == 1 and x.stride(3) == x.shape[1]


def like(x: Tensor, other: Tensor) -> Tensor:
    """``x`` in the memory format of ``other``, which has the same shape."""
    return channels_last(x) if is_channels_last(other) else x.contiguous()


def flat(x: Tensor) -> Tensor:
    """The numbers of ``x`` in the order of memory, where that is one of the two formats: a view."""
    return x.permute(0, 2, 3, 1).reshape(-1) if is_channels_last(x) else x.reshape(-1)


def shaped(values: Tensor, x: Tensor) -> Tensor:
    """What :func:`flat` took apart, in the shape and memory format of ``x``: a view."""
    if is_channels_last(x):
        batch, channels, height, width = x.shape
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return values.view(x.shape)


def without_base(view: Tensor) -> Tensor:
    """The memory of ``view`` as a tensor that is a view of no other, so that autograd lets it be changed in place.

    For results of a custom function only, whose base nobody else has.
    """
    return view.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.size(), view.stride())
