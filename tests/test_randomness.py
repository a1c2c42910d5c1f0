"""Seeds and the states of all generators."""

import random

import numpy as np
import torch

from bnn_lightning.randomness import random_states, set_random_states


def test_the_states_of_all_generators_come_back():
    states = random_states(torch.device("cpu"))

    def draw():
        return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.randn(1).item()

    first = draw()
    assert draw() != first
    set_random_states(states, torch.device("cpu"))
    assert draw() == first
