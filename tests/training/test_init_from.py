"""Starting from a trained twin."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from bnn_lightning import BBB, LRT, BayesianModule, LeNet, Sparse, Variational, bayesian_layers, sampling
from bnn_lightning.cli import main
from tests.helpers import SMALL
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


def test_init_from_takes_the_whole_posterior_of_the_same_network(tmp_path):
    trained = BayesianModule(tiny().network, BBB(rho_init=(-3.0, 0.1)))
    fit(trained, enable_checkpointing=True, default_root_dir=tmp_path).save_checkpoint(tmp_path / "own.ckpt")
    model = untrained(tiny().network, BBB(), init_from=str(tmp_path / "own.ckpt"))
    fit(model)
    found = model.network.state_dict()
    for name, value in trained.network.state_dict().items():  # with its prior, and no other that its means would give
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-12)


def test_init_from_another_network_is_refused(tmp_path):
    _, path = saved_twin(tmp_path)
    model = BayesianModule(LeNet(), LRT(), init_from=path)
    with pytest.raises(ValueError, match=r"^init_from must be a checkpoint of the deterministic twin, got .*: 2\.bias"):
        fit(model)


class Normed(nn.Sequential):
    """A network whose weights are computed from others."""

    def __init__(self):
        super().__init__(nn.MaxPool2d(4), nn.Flatten(), weight_norm(nn.Linear(64, 10)))


class Head(nn.Sequential):
    """Two layers and a head, as torchvision's networks have one."""

    def __init__(self, classes=10):
        super().__init__()
        self.pool, self.flatten = nn.MaxPool2d(4), nn.Flatten()
        self.body, self.norm, self.fc = nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, classes)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s, "epoch": 3}])
def test_init_from_takes_the_state_dict_of_a_network_with_another_head(tmp_path, wrap):
    torch.manual_seed(0)
    trained, path = Head(classes=1000), str(tmp_path / "weights.pt")
    trained.body.weight.data.mul_(2)
    state = {f"module.{name}": value for name, value in trained.state_dict().items() if not name.startswith("fc")}
    torch.save(wrap(state | {"module.fc.weight": torch.zeros(1000, 16), "module.fc.bias": torch.zeros(1000)}), path)
    model = untrained(Head(), LRT(prior_sigma=0.3), init_from=path)
    with pytest.warns(UserWarning, match=r"has 7 of 9 tensors; these begin anew: fc\.weight \[1000, 16\] there"):
        fit(model)
    body, head = model.network.body.weight, model.network.fc.weight
    assert torch.equal(body.mu, trained.body.weight)
    assert torch.equal(body.prior_mu, trained.body.weight)
    assert head.prior_mu.shape == ()  # no trained weights: the prior is the method's own
    assert head.rho.mean().item() == pytest.approx(-5, abs=5 * 0.1 / 160**0.5)


def test_a_network_that_began_with_a_new_head_loads_again(tmp_path):
    torch.manual_seed(0)
    path = str(tmp_path / "weights.pt")
    torch.save({name: value for name, value in Head().state_dict().items() if not name.startswith("fc")}, path)
    model = BayesianModule(Head(), LRT(), Variational(0.01), init_from=path)
    with pytest.warns(UserWarning, match=r"these begin anew: fc\.weight, fc\.bias\.$"):
        fit(model)
    other = BayesianModule(Head(), LRT(), init_from=path)
    other.load_state_dict(model.state_dict())
    assert other.network.fc.weight.prior_mu.shape == ()
    with sampling(model, False), sampling(other, False):
        x = torch.randn(3, 1, 32, 32)
        torch.testing.assert_close(other.eval()(x), model.eval()(x))


def test_a_layer_of_which_the_file_has_a_part_has_the_prior_of_the_method(tmp_path):
    path = str(tmp_path / "weights.pt")
    state = Head().state_dict()
    torch.save(state | {"fc.weight": torch.zeros(10, 8)}, path)  # of a narrower body, with as many classes
    model = untrained(Head(), LRT(), init_from=path)
    with pytest.warns(UserWarning, match=r"these begin anew: fc\.weight \[10, 8\] there"):
        fit(model)
    assert model.network.fc.weight.prior_mu.shape == ()  # and not centred on values that were drawn
    assert torch.equal(model.network.fc.bias.mu, state["fc.bias"])
    assert torch.equal(model.network.body.weight.prior_mu, state["body.weight"])


def test_weights_that_a_twin_computes_are_taken_as_computed_or_refused(tmp_path, monkeypatch):
    words = ["fit", "--model.network", f"{__name__}.Normed", "--data", "MNIST5k", *SMALL, "--data.image_size", "32"]
    monkeypatch.chdir(tmp_path)
    assert main([*words, "--trainer.max_epochs", "1", "--model.method", "null", "--name", "twin"]) == 0
    twin = "checkpoints/twin/version_0/last.ckpt"
    trained = BayesianModule.from_checkpoint(twin).network
    model = untrained(Normed(), LRT(), init_from=twin)
    fit(model)
    assert torch.equal(model.network[2].weight.mu, trained[2].weight)
    torch.save(trained.state_dict(), "weights.pt")
    with pytest.raises(ValueError, match=r"^2\.weight must be among .* 2\.parametrizations\.weight\.original0"):
        fit(untrained(Normed(), LRT(), init_from="weights.pt"))


def test_files_that_are_no_weights_of_the_network_are_refused(tmp_path):
    path = str(tmp_path / "weights.pt")
    for contents, message in (
        ({"fc.weight": torch.zeros(10, 16)}, r"body\.bias must be \[16\] as in this network, got nothing"),
        ({"epoch": 3}, "which has none"),
        (Head(), "it holds Python objects"),
    ):
        torch.save(contents, path)
        with pytest.raises(ValueError, match=rf"^init_from must be .*{message}"):
            fit(BayesianModule(Head(), LRT(), init_from=path))


@pytest.mark.parametrize("method", [None, LRT(), Sparse()], ids=str)
def test_what_is_frozen_stays_as_it_is_and_deterministic(method):
    torch.manual_seed(0)
    network = Head()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    model = BayesianModule(network, method, Variational(0.01), freeze=["bo*", "norm"])
    fit(model, epochs=2)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("fc"))
    trained = {id(value) for group in model.optimizers().param_groups for value in group["params"]}
    assert trained == {id(value) for value in model.network.fc.parameters()}
    assert isinstance(model.network.body, nn.Linear)
    assert not torch.equal(getattr(model.network.fc.weight, "mu", model.network.fc.weight), before["fc.weight"])


def test_freezing_needs_names_and_something_to_train():
    with pytest.raises(ValueError, match=r"^freeze must be names in the network, .* are pool, .*, got layer1\.$"):
        BayesianModule(Head(), freeze="layer1")
    with pytest.raises(ValueError, match=r"^network must have parameters to train, got one whose parameters are all"):
        fit(BayesianModule(Head(), freeze="*"))


def test_lazy_layers_take_their_sizes_from_the_shape_of_the_images():
    network = nn.Sequential(nn.LazyConv2d(2, 5), nn.MaxPool2d(4), nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(ValueError, match=r"^input_shape must be the \[channels, height, width\] that the lazy 0 needs"):
        BayesianModule(network, LRT())
    model = BayesianModule(network, LRT(), input_shape=[1, 32, 32])
    assert [layer.kind for layer in bayesian_layers(model.network)] == ["Conv2d", "Linear"]
    with pytest.raises(ValueError, match=r"^input_shape must be one that the network can take, got \[1, 2, 2\]: "):
        BayesianModule(nn.Sequential(nn.LazyConv2d(2, 5), nn.Flatten()), LRT(), input_shape=[1, 2, 2])
