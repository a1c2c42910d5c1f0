"""Seeds combined from several numbers; saving and restoring the states of all random generators of a training run."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def combined_seed(*numbers: int) -> int:
    """One seed from several numbers; below 2^32, because torch's CPU generator ignores higher bits of a seed."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**32
    return seed


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, and of the generator of ``device`` if it has its own.

    They are tensors and plain numbers, so that a checkpoint can hold them.
    """
    python_version, python_state, python_gauss = random.getstate()
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    states = {
        "torch": torch.get_rng_state(),
        "python": [python_version, torch.tensor(python_state), python_gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys, np.int64)), int(position), int(has_gauss), float(gauss)],
    }
    if device.type in ("cuda", "mps"):
        states["device"] = _device_module(device).get_rng_state()
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restores the states that :func:`random_states` returned.

    The state of a CUDA or MPS generator is restored only where ``device`` is such a device too.
    """
    torch.set_rng_state(states["torch"].cpu())
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state.tolist()), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    on_device: Tensor | None = states.get("device")
    if on_device is not None and device.type in ("cuda", "mps"):
        _device_module(device).set_rng_state(on_device.cpu())


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """The generators of :func:`random_states` start from ``seed``; when the ``with`` ends, they are what they were."""
    before = random_states(device)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed devices whose state is not restored
    if device.type in ("cuda", "mps"):
        _device_module(device).manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        set_random_states(before, device)


def _device_module(device: torch.device) -> Any:
    return torch.cuda if device.type == "cuda" else torch.mps
