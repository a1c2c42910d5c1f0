"""The states of the random generators that a training run draws from, in plain values that a checkpoint can hold."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def mixed(*numbers: int) -> int:
    """A seed made of several numbers; below 2^32, for torch's generator on the CPU looks at no more bits than that."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number) % 2**32
    return seed


def random_states(device: torch.device) -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators, and of that of ``device``, as tensors and numbers."""
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
    """Goes on from what :func:`random_states` gave; the state of a device goes into one of the same kind only."""
    torch.set_rng_state(states["torch"].cpu())
    version, state, gauss = states["python"]
    random.setstate((version, tuple(state.tolist()), gauss))
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
    on_device: Tensor | None = states.get("device")
    if on_device is not None and device.type in ("cuda", "mps"):
        _device_module(device).set_rng_state(on_device.cpu())


def _device_module(device: torch.device) -> Any:
    return torch.cuda if device.type == "cuda" else torch.mps
