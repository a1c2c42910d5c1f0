"""Starting from a trained twin."""

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, BayesianModule, LeNet, Sparse, Variational, sampling
from tests.training.helpers import fit, tiny


def saved_twin(tmp_path):
    twin = tiny()
    trainer = fit(twin, enable_checkpointing=True, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "twin.ckpt")
    return twin, str(tmp_path / "twin.ckpt")


def untrained(network, method, init_from):
    """A module whose steps are too short to change a number."""
    return BayesianModule(network, method, Variational(1e-30, torch.optim.SGD), init_from=init_from)


def test_init_from_takes_means_sigmas_and_prior_means_of_the_twin(tmp_path):
    twin, path = saved_twin(tmp_path)
    network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
    model = untrained(network, LRT(moped_delta=0.2), init_from=path)
    fit(model)
    weight, trained = model.network[2].weight, twin.network[2].weight
    assert torch.equal(weight.mu, trained)
    torch.testing.assert_close(weight.sigma, (0.2 * trained.abs()).clamp_min(1e-6))
    assert torch.equal(weight.prior_mu, trained)
    x = torch.randn(3, 1, 32, 32)
    with sampling(model, False):
        torch.testing.assert_close(model(x), twin(x))


def test_init_from_can_take_the_means_alone_and_goes_into_any_method(tmp_path):
    twin, path = saved_twin(tmp_path)
    for method in (BBB(moped_delta=0), Sparse(), None):
        network = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10))
        model = untrained(network, method, init_from=path)
        fit(model)
        weight = model.network[2].weight
        assert torch.equal(weight if method is None else weight.mu, twin.network[2].weight)
    assert model.network[2].bias is not None
    model = untrained(
        nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(64, 10)), BBB(moped_delta=0), init_from=path
    )
    fit(model)
    assert model.network[2].weight.prior_mu.item() == 0
    assert model.network[2].weight.rho.mean().item() == pytest.approx(-5, abs=5 * 0.1 / 640**0.5)


def test_init_from_another_network_is_refused(tmp_path):
    _, path = saved_twin(tmp_path)
    model = BayesianModule(LeNet(), LRT(), init_from=path)
    with pytest.raises(ValueError, match=r"^init_from must be a checkpoint of the deterministic twin, got .*: 2\.bias"):
        fit(model)
