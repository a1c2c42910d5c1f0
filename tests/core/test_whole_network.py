"""Joint draws, widths, objectives and descriptions of whole networks."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from bnn_lightning import BBB, LRT, LeNet, MCDropout, Sparse, bayesianize, describe, draw, random_tensors, to_plain
from bnn_lightning.core.methods import HierarchicalA, VariationalB
from bnn_lightning.core.whole_network import methods_of, objective_of, width_parameters


def test_a_draw_is_a_function_of_the_input():
    net = bayesianize(LeNet(), BBB(rho_init=(-1.0, 0.1)))
    x = torch.randn(3, 1, 32, 32)
    torch.manual_seed(1)
    weights = draw(net)
    assert list(weights) == [name for name, _ in random_tensors(net)]
    torch.manual_seed(1)
    torch.testing.assert_close(
        functional_call(to_plain(net), weights, (x,)), net(x)
    )  # the same noise in the same order


def test_draws_are_independent_between_tensors():
    net = bayesianize(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), BBB(rho_init=(0.0, 0.0)))
    draws = torch.stack([torch.cat([value.flatten() for value in draw(net).values()]) for _ in range(4000)])
    correlations = torch.corrcoef(draws.T) - torch.eye(4)
    assert correlations.abs().max() < 5 / 4000**0.5


@pytest.mark.parametrize(
    ("method", "names"),
    [
        (LRT(), {"weight.rho", "bias.rho"}),
        (Sparse(), {"weight.log_sigma2"}),
        (VariationalB(), {"weight.alpha.log_alpha"}),
        (HierarchicalA(parametrisation="log_sigma"), {"weight.alpha.log_sigma"}),
        (MCDropout(), set()),
    ],
)
def test_every_posterior_declares_its_widths(method, names):
    net = bayesianize(nn.Sequential(nn.Linear(3, 2)), method)
    widths = {id(parameter) for parameter in width_parameters(net)}
    assert {name.removeprefix("0.") for name, value in net.named_parameters() if id(value) in widths} == names


def test_the_objective_is_that_of_the_methods():
    assert objective_of(LeNet()) == "likelihood"
    assert objective_of(bayesianize(LeNet(), MCDropout())) == "likelihood"
    assert objective_of(bayesianize(LeNet(), LRT())) == "elbo"
    assert objective_of(bayesianize(LeNet(), Sparse())) == "regularised"


def test_a_description_counts_every_parameter_once():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    made = bayesianize(net, LRT(), only="4")
    description = describe(made)
    rows = [(layer.name, layer.kind, layer.random, layer.deterministic) for layer in description.layers]
    assert rows == [("0", "Conv2d", 0, 40), ("1", "BatchNorm2d", 0, 8), ("4", "Linear", 51, 0)]
    assert description.random + description.deterministic == sum(value.numel() for value in net.parameters())
    assert description.layers[2].method == LRT()
    lines = str(description).splitlines()
    assert lines[0].split() == ["layer", "kind", "method", "random", "deterministic"]
    assert lines[-1].split() == ["all", "51", "48"]
    assert len({len(line) for line in lines}) == 1


def test_biases_under_dropout_are_not_random():
    (layer,) = describe(bayesianize(nn.Linear(3, 2), MCDropout())).layers
    assert (layer.random, layer.deterministic) == (6, 2)


def test_methods_are_met_once():
    net = bayesianize(bayesianize(LeNet(), LRT(), only="fc*"), BBB(), only="conv*")
    assert methods_of(net) == [BBB(), LRT()]
