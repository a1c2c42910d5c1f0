"""Joint posteriors: draws have the covariance that the parts state, across tensors, and nothing is remembered."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from bnn_lightning import BayesianLayer, Joint, Sampler, draw, kl, random_tensors, sample_together, to_plain
from bnn_lightning.core.methods import DrawnTogether
from bnn_lightning.core.posteriors import FactorPart, FixedWidth, KroneckerPart
from bnn_lightning.evaluation.draws import draws_of


def filled(part):
    with torch.no_grad():
        for name, buffer in part.named_buffers():
            buffer.copy_(torch.randn_like(buffer))
            if name == "scales":
                buffer.abs_()
    return part


def parts(kind):
    """A weight (3, 2) and a bias (3,) of one joint in float64, and the covariance of both, flattened one by one."""
    joint = Joint()
    mu, bias = torch.randn(3, 2, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    if kind == "factor":
        weight, bias = filled(FactorPart(mu, joint, 4)), filled(FactorPart(bias, joint, 4))
        factor = torch.cat([weight.factor.flatten(0, 1), bias.factor])
        return weight, bias, factor @ factor.T
    weight, bias = filled(KroneckerPart(mu, joint, 3)), filled(KroneckerPart(bias, joint, 3))
    bias.left, bias.scales = weight.left.clone(), weight.scales.clone()
    # vec(L (S o E) R^T) = (L x R) diag(s) e in row-major order.
    weight_map = torch.kron(weight.left, weight.right) * weight.scales.flatten()
    bias_map = torch.kron(bias.left, bias.right) * bias.scales.flatten()
    whole = torch.cat([weight_map, bias_map])
    return weight, bias, whole @ whole.T


@pytest.mark.parametrize("kind", ["factor", "kronecker"])
def test_parts_that_are_drawn_together_have_the_covariance_of_the_joint(kind):
    weight, bias, covariance = parts(kind)
    means = torch.cat([weight.mean.flatten(), bias.mean])
    with torch.no_grad():
        draws = torch.stack(
            [torch.cat([part.flatten() for part in sample_together([weight, bias])]) for _ in range(20_000)]
        )
    measured = (draws - means).T @ (draws - means) / len(draws)
    # The variance of a product of two Gaussians is c_ii c_jj + c_ij^2.
    diagonal = covariance.diagonal()
    error = ((torch.outer(diagonal, diagonal) + covariance.square()) / len(draws)).sqrt()
    assert torch.all((measured - covariance).abs() < 5 * error)
    variances = torch.cat([weight.variance.flatten(), bias.variance])
    torch.testing.assert_close(variances, diagonal, rtol=1e-12, atol=1e-12)
    assert weight.kl() == bias.kl() == 0


def test_a_part_that_is_drawn_alone_has_its_marginal():
    weight, _, _ = parts("kronecker")
    with torch.no_grad():
        draws = torch.stack([weight.sample() for _ in range(20_000)])
    error = (2 * weight.variance.square() / len(draws)).sqrt()
    assert torch.all((draws.var(0) - weight.variance).abs() < 5 * error)


def network(kind=FactorPart):
    """Two layers whose tensors are all of one joint, which one number moves."""
    joint = Joint()

    class Together(DrawnTogether):
        def weight(self, init, op):
            return self.bias(init)

        def bias(self, init):
            return kind(init.detach().clone(), *(() if kind is FixedWidth else (joint, 1)))

    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    net = nn.Sequential(BayesianLayer(net[0], Together()), net[1], BayesianLayer(net[2], Together()))
    for _, posterior in random_tensors(net):
        if kind is FactorPart:
            posterior.factor.fill_(1.0)
    return net


def test_draw_draws_each_joint_once_and_anew_at_each_call():
    net = network()
    shifts = []
    for _ in range(3):
        drawn = draw(net)
        shift = torch.cat([(drawn[name] - part.mean).flatten() for name, part in random_tensors(net)])
        torch.testing.assert_close(shift, shift[:1].expand_as(shift))
        shifts.append(shift[0].item())
    assert len(set(shifts)) == 3
    assert kl(net) == 0


def test_local_draws_are_weight_draws_where_tensors_are_correlated():
    net = network()
    assert [draws_of(net, draws) for draws in (None, "local", "weights", "mean")] == ["weights"] * 3 + ["mean"]
    assert draws_of(network(FixedWidth), "local") == "local"
    x = torch.randn(5, 2)
    samples = Sampler(net, 4, "local")(x)
    torch.testing.assert_close(samples, Sampler(net, 4)(x))
    assert samples.std(0).min() > 0


def test_copies_keep_their_joints_and_share_none_with_the_original():
    net = network()
    twin = copy.deepcopy(net)
    joints = [{part.joint for _, part in random_tensors(each)} for each in (net, twin)]
    assert len(joints[0]) == len(joints[1]) == 1
    assert joints[0] != joints[1]
    drawn = draw(twin)
    shift = torch.cat([(drawn[name] - part.mean).flatten() for name, part in random_tensors(twin)])
    torch.testing.assert_close(shift, shift[:1].expand_as(shift))


def test_joint_draws_run_under_vmap_and_have_gradients_in_the_means():
    net = network()
    plain, x = to_plain(net), torch.randn(4, 2)
    drawn = [draw(net) for _ in range(3)]
    stacked = {name: torch.stack([each[name] for each in drawn]) for name in drawn[0]}
    together = vmap(lambda weights: functional_call(plain, weights, (x,)))(stacked)
    singly = torch.stack([functional_call(plain, each, (x,)) for each in drawn])
    torch.testing.assert_close(together, singly)
    together.sum().backward()
    assert all(part.mu.grad is not None for _, part in random_tensors(net))
