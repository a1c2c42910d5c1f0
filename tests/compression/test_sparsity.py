import math

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, LRT, HierarchicalB, LeNet300100, Sparse, bayesianize
from bnn_lightning.compression.sparsity import (
    compression_ratios,
    masks,
    masks_removing,
    overall_sparsity,
    sparsity_by_layer,
    weight_log_alphas,
)
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.core.whole_network import random_tensors


def sparse_net():
    """LeNet-300-100 in which the first 0.97, 0.9 and 0.5 of each layer's weights have log alpha 4, the others -2."""
    net = bayesianize(LeNet300100(), Sparse())
    for (_, posterior), share in zip(weights(net), (0.97, 0.9, 0.5), strict=True):
        log_alpha = torch.full((posterior.mu.numel(),), -2.0)
        log_alpha[: round(share * len(log_alpha))] = 4.0
        with torch.no_grad():
            posterior.log_sigma2.copy_(log_alpha.view(posterior.mu.shape) + posterior.mu.square().log())
    return net


def weights(net):
    return [(name, posterior) for name, posterior in random_tensors(net) if name.endswith("weight")]


def test_the_report_counts_a_hand_made_network():
    # LeNet-300-100 and its shares are small enough to count by hand.
    net = sparse_net()
    keep = masks(net)
    layers = sparsity_by_layer(net, keep)
    assert [(layer.layer, layer.weights) for layer in layers] == [("fc1", 235_200), ("fc2", 30_000), ("fc3", 1_000)]
    assert [layer.kept for layer in layers] == [7_056, 3_000, 500]
    assert [layer.sparsity for layer in layers] == pytest.approx([0.97, 0.9, 0.5])
    assert [layer.median_log_alpha for layer in layers][:2] == pytest.approx([4, 4], abs=1e-4)
    kept = 7_056 + 3_000 + 500
    assert compression_ratios(net, keep) == pytest.approx((266_200 / kept, 266_610 / (kept + 410)))
    assert overall_sparsity(net) == pytest.approx(1 - kept / 266_200, abs=1e-6)


def test_masked_network_is_the_network_with_those_weights_deleted():
    # The dense layers are written out here: what the masks leave out must not reach the outputs in any other way.
    net = sparse_net()
    keep = masks(net)
    masked = to_plain(net, keep)
    x = torch.randn(4, 1, 28, 28)
    h = x.flatten(1)
    for name in ("fc1", "fc2", "fc3"):
        layer = net.get_submodule(name)
        weight = layer.weight.mu.detach().clone()
        weight[~keep[f"{name}.weight"]] = 0
        h = h @ weight.T + layer.bias.mu
        h = h.relu() if name != "fc3" else h
    torch.testing.assert_close(masked(x), h)
    assert not any(True for _ in random_tensors(masked))
    assert torch.equal(to_plain(net).fc1.weight, net.fc1.weight.mu)


def test_threshold_moves_the_mask():
    net = sparse_net()
    assert overall_sparsity(net, threshold=5.0) == 0
    assert overall_sparsity(net, threshold=-3.0) == 1
    assert compression_ratios(net, masks(net, -3.0))[0] == math.inf


def test_layers_that_are_not_random_count_as_kept():
    net = bayesianize(LeNet300100(), Sparse(), only="fc1")
    keep = {"fc1.weight": torch.zeros(300, 784, dtype=torch.bool)}
    assert compression_ratios(net, keep)[0] == pytest.approx(266_200 / 31_000)


def test_signal_to_noise_goes_over_the_whole_network_and_removes_the_share_exactly():
    net = bayesianize(nn.Sequential(nn.Linear(10, 20), nn.Linear(20, 5)), LRT())
    ratios = {name: (p.mu.abs() / p.sigma).detach() for name, p in weights(net)}
    for share in (0.0, 0.37, 0.5, 1.0):
        keep = masks_removing(net, share)
        assert sum(int((~mask).sum()) for mask in keep.values()) == round(share * 300)
        kept = torch.cat([ratios[name][mask] for name, mask in keep.items()])
        gone = torch.cat([ratios[name][~mask] for name, mask in keep.items()])
        assert len(kept) == 0 or len(gone) == 0 or gone.max() <= kept.min()
    with pytest.raises(ValueError, match=r"^removed must be a share of the weights from 0 to 1, got 1.5\.$"):
        masks_removing(net, 1.5)


def test_equal_ratios_are_still_removed_in_the_share_asked_for():
    net = bayesianize(nn.Linear(8, 8), HierarchicalB(alpha="layer"))
    assert int(masks_removing(net, 0.25)["weight"].sum()) == 48


def test_biases_are_left_out():
    assert list(weight_log_alphas(bayesianize(nn.Linear(2, 2), BBB()))) == ["weight"]
    net = bayesianize(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)), BBB(), ["*", "BatchNorm2d"])
    with torch.no_grad():
        for _, posterior in random_tensors(net):
            posterior.rho.fill_(6.0)
    keep = masks(net)
    assert list(keep) == ["0.weight"]
    assert not keep["0.weight"].any()
    torch.testing.assert_close(to_plain(net, keep)[1].weight, net[1].weight.mean)
    assert compression_ratios(net, keep) == (math.inf, pytest.approx(48 / 12))


def test_a_network_whose_norms_alone_are_random_has_nothing_to_remove():
    net = bayesianize(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), BBB(), only="LayerNorm")
    assert overall_sparsity(net) == 0
    with pytest.raises(ValueError, match=r"^net must have random weights, got none"):
        masks_removing(net, 0.5)
