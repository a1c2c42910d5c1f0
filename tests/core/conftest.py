"""Fixtures of the tests of core."""

import pytest

from bnn_lightning.core.kernels import compiling


@pytest.fixture(params=["plain operations", "autograd functions"])
def as_small_and_as_large(request, monkeypatch):
    """Once as small tensors are computed, and once by the autograd functions that large ones need."""
    if request.param == "autograd functions":
        monkeypatch.setattr(compiling, "_SMALL", -1)
