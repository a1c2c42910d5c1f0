"""What every inference is promised: when its hooks run, with what, and which epoch can be the best."""

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, BayesianModule, Categorical, LinearWarmup, Variational
from tests.training.helpers import digits, fit


class Recorded(Variational):
    """Variational inference that writes down its hooks, and fills the bias of the last layer in the end."""

    def after_epoch(self, net):
        calls.append("epoch")

    def after_fit(self, net, batches, likelihood):
        images = [(net(x), y) for x, y in batches]
        calls.append(("fit", sum(len(y) for _, y in images), images[0][0].dtype))
        with torch.no_grad():
            net[2].bias.mu.fill_(7.0)


calls = []


def network():
    return nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-mixed"])
def test_hooks_run_before_the_last_validation_with_all_training_images(precision):
    calls.clear()
    model = BayesianModule(network(), BBB(), Recorded())
    trainer = fit(model, digits(), epochs=3, precision=precision)
    dtype = {"32-true": torch.float32, "64-true": torch.float64, "bf16-mixed": torch.bfloat16}[precision]
    assert calls == ["epoch", "epoch", "epoch", ("fit", 400, dtype)]
    assert torch.all(model.network[2].bias.mu == 7)
    assert trainer.callback_metrics["val/kl"] > 10 * 49 / (2 * 0.1**2)  # validation has seen the filled bias


def test_what_is_formed_in_the_end_is_there_in_the_last_epoch_alone():
    assert [Recorded().is_settled(epoch, 3) for epoch in range(3)] == [False, False, True]
    assert [Variational().is_settled(epoch, 3) for epoch in range(3)] == [True, True, True]
    warmed = Variational(kl_weight=LinearWarmup(length=2))
    assert [warmed.is_settled(epoch, 4) for epoch in range(4)] == [False, False, True, True]


def test_scores_of_training_steps_are_formed_without_gradients():
    seen = []

    class Watching(Categorical):
        def training_score(self, outputs, y):
            seen.append(torch.is_grad_enabled())
            return super().training_score(outputs, y)

    fit(BayesianModule(network(), BBB(), likelihood=Watching()))
    assert set(seen) == {False}
