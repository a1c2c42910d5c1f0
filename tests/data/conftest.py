"""Images that the tests of data share."""

import pytest

from bnn_lightning.data import MNIST5k


@pytest.fixture(scope="module")
def digits():
    data = MNIST5k(image_size=32)
    data.setup()
    return data
