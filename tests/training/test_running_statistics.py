"""Modules with running statistics: one place in a network each."""

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, BayesianModule
from tests.training.helpers import digits, fit, module


class SharedNorm(nn.Module):
    """Runs one batch norm twice; in a forward of its own, where no look at the modules could see it."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(64, 16), nn.Linear(16, 16), nn.Linear(16, 10)
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        x = self.norm(self.fc1(nn.functional.max_pool2d(x, 4).flatten(1)).relu())
        return self.fc3(self.norm(self.fc2(x)).relu())


@pytest.mark.parametrize("method", [None, LRT()])
def test_one_batch_norm_for_two_layers_is_refused(method):
    with pytest.raises(
        ValueError,
        match=r"^network must run each module with running statistics once in a forward pass, but runs norm "
        r"\(BatchNorm1d\) again: .* Give each place a module of its own, or set allow_shared_statistics\.$",
    ):
        fit(BayesianModule(SharedNorm(), method))


def test_a_shared_batch_norm_that_is_let_through_costs_accuracy_in_evaluation():
    torch.manual_seed(0)
    model = module(SharedNorm(), lr=0.01, allow_shared_statistics=True)
    trainer = fit(model, digits(batch_size=50), epochs=5)
    in_training, in_evaluation = (trainer.callback_metrics[f"{stage}/accuracy"].item() for stage in ("train", "val"))
    # 400 and 50 images: five standard errors of the difference are 0.36 at most
    assert in_training - in_evaluation > 5 * (0.25 / 400 + 0.25 / 50) ** 0.5


def test_modules_that_run_once_pass_however_many_samples_are_drawn():
    class OwnNorms(SharedNorm):
        def __init__(self):
            super().__init__()
            self.other = nn.BatchNorm1d(16)

        def forward(self, x):
            x = self.norm(self.fc1(nn.functional.max_pool2d(x, 4).flatten(1)).relu())
            return self.fc3(self.other(self.fc2(x)).relu())

    model = module(OwnNorms(), BBB(), samples=3)
    fit(model)
    assert model._watched == []
    assert all(not module._forward_pre_hooks for module in model.modules())  # nothing looks after the first step
