"""Memory formats (channels_last and contiguous), flat views of both, and the settings of glibc's allocator."""

import ctypes
import os
import platform

import torch
from torch import Tensor

# Parameters of glibc's mallopt(3): number in malloc.h, value.
_MALLOPT = {
    "M_MMAP_THRESHOLD": (-3, 2**30),  # blocks below 1 GiB come from the heap instead of mmap
    "M_TRIM_THRESHOLD": (-1, 2**31 - 1),  # the heap returns memory only when 2 GiB at its top are free
    "M_TOP_PAD": (-2, 2**28),  # the heap grows by at least 256 MiB
    "M_ARENA_MAX": (-8, 1),  # one heap for all threads, autograd's included: other heaps are limited to 64 MiB
}
_OTHER_ALLOCATORS = ("jemalloc", "tcmalloc", "mimalloc")


def keep_freed_memory() -> bool:
    """Configures glibc's allocator to reuse freed memory instead of returning it to the operating system.

    Call it once, before tensors are created. By default glibc maps each block of 32 MiB or more anew, with a page fault
    for every page at its first use; that took a fifth of a training step of 3Conv3FC under LRT. Afterwards freed memory
    still counts as resident memory of the process.

    Returns:
        Whether the settings were made. They are not where the allocator is not glibc's, another one is preloaded, or
        the environment configures glibc's (``MALLOC_...``, ``GLIBC_TUNABLES``).
    """
    environment = os.environ
    user_configured = "glibc.malloc" in environment.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") and name.endswith("_") for name in environment
    )
    other_preloaded = any(name in environment.get("LD_PRELOAD", "") for name in _OTHER_ALLOCATORS)
    if platform.libc_ver()[0] != "glibc" or user_configured or other_preloaded:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    accepted = [mallopt(parameter, value) for parameter, value in _MALLOPT.values()]
    return 0 not in accepted


def channels_last(x: Tensor) -> Tensor:
    """Images ``(batch, channels, height, width)`` in channels_last memory; tensors without 4 axes are unchanged.

    oneDNN's convolutions and torch's pooling are fastest in this format.
    """
    if x.dim() != 4:
        return x
    if x.shape[1] > 1:
        return x.contiguous(memory_format=torch.channels_last)
    # With one channel both formats are the same memory; convolutions decide by the strides which of them is meant.
    batch, _, height, width = x.shape
    return x.contiguous().view(batch, height, width, 1).permute(0, 3, 1, 2)


def is_channels_last(x: Tensor) -> bool:
    """Whether convolutions treat ``x`` as images in channels_last memory."""
    return x.dim() == 4 and x.stride(1) == 1 and x.stride(3) == x.shape[1]


def in_format_of(x: Tensor, reference: Tensor) -> Tensor:
    """``x`` in the memory format of ``reference``, which has the same shape."""
    return channels_last(x) if is_channels_last(reference) else x.contiguous()


def flatten_in_memory_order(x: Tensor) -> Tensor:
    """The elements of ``x``, ``(x.numel(),)``, in the order of memory; a view if ``x`` is contiguous in its format."""
    return x.permute(0, 2, 3, 1).reshape(-1) if is_channels_last(x) else x.reshape(-1)


def unflatten_like(values: Tensor, x: Tensor) -> Tensor:
    """The inverse of :func:`flatten_in_memory_order`: ``values`` in the shape and memory format of ``x``, as a view."""
    if is_channels_last(x):
        batch, channels, height, width = x.shape
        return values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    return values.view(x.shape)


def without_view_base(view: Tensor) -> Tensor:
    """A tensor on the memory of ``view`` that is no view for autograd, so that it may be changed in place.

    Only for results of a custom autograd function whose base tensor is used nowhere else.
    """
    return view.new_empty(0).set_(view.untyped_storage(), view.storage_offset(), view.size(), view.stride())
