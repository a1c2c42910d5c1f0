"""Class weights, label smoothing and balanced sampling: they train, and nothing else has them."""

import pytest
import torch
from lightning.pytorch import Trainer

from bnn_lightning import BBB, LRT, Categorical
from bnn_lightning.core.whole_network import kl
from tests.training.helpers import digits, fit, tiny


def recorded_step(model, data):
    """The outputs, labels, loss and logged nll of the first step of a training."""
    steps = []
    original = model.inference.loss

    def loss(net, x, y, likelihood, step):
        terms = original(net, x, y, likelihood, step)
        steps.append((terms.outputs.detach(), y, terms.loss.item(), kl(net).item()))
        return terms

    object.__setattr__(model.inference, "loss", loss)
    fit(model, data, limit_train_batches=1)
    return steps[0]


def test_weights_are_in_the_loss_and_not_in_what_is_logged():
    data = digits(class_weights="balanced")
    model = tiny(BBB())
    outputs, y, loss, divergence = recorded_step(model, data)
    counts = data.train.labels.bincount()
    nll = torch.nn.functional.cross_entropy(outputs[0], y, reduction="none")
    weighted = (nll * (len(data.train) / (10 * counts))[y]).mean().item()
    assert weighted != pytest.approx(nll.mean().item(), rel=1e-4)
    assert loss == pytest.approx(weighted + divergence / data.num_train, rel=1e-5)
    assert model.summary.nll == pytest.approx(nll.mean().item(), rel=1e-5)
    assert model.summary.elbo_per_n == pytest.approx(-(nll.mean().item() + divergence / data.num_train), rel=1e-5)
    assert "class weights: loss is no ELBO" in model.summary.caveats


def test_validation_and_test_are_those_of_the_plain_likelihood():
    data = digits(class_weights="balanced")
    plain, smoothed = tiny(), tiny(likelihood=Categorical(label_smoothing=0.3))
    for model in (plain, smoothed):
        fit(model, data)
    assert "label smoothing 0.3" in smoothed.summary.caveats  # a deterministic network has no ELBO to speak of
    assert "label smoothing 0.3" not in plain.summary.caveats
    plain.load_state_dict(smoothed.state_dict())
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    data.setup("test")
    results = []
    for model in (plain, smoothed):
        trainer = Trainer(accelerator="cpu", **quiet)
        (validation,), (test,) = trainer.validate(model, data, verbose=False), trainer.test(model, data, verbose=False)
        results.append(validation | test)
    assert results[0] == results[1]
    assert {"val/nll", "test/nll", "test/balanced_accuracy"} <= results[0].keys()


def test_balanced_sampling_leaves_n_alone_and_is_said():
    data = digits(sampling="balanced")
    model = tiny(LRT())
    fit(model, data)
    assert model.summary.num_train == data.num_train == 400
    assert "balanced sampling: loss is no ELBO" in model.summary.caveats


def test_a_run_without_any_of_them_says_nothing():
    model = tiny(LRT())
    fit(model)
    assert model.summary.departures == ()
    assert not any("ELBO" in caveat for caveat in model.summary.caveats)
