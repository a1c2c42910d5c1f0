"""What removing weights costs, and what the smaller network gains."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bnn_lightning import LRT, LeNet300100, bayesianize
from bnn_lightning.compression.pruning import pruning_sweep
from bnn_lightning.compression.sparsity import masks_removing
from bnn_lightning.core.whole_network import kl, sampling
from bnn_lightning.deployment import dense
from bnn_lightning.deployment.dense import export_dense


def test_export_measures_the_three_networks(tmp_path):
    net = bayesianize(LeNet300100(), LRT())
    loader = [(torch.randn(1, 1, 28, 28), torch.tensor([1]))] * 2  # batches of one image, too
    keep = masks_removing(net, 0.99)
    rows, difference = export_dense(net, keep, loader, tmp_path / "new" / "net.pt2", {})
    assert [row["network"] for row in rows] == ["mean weights", "kept weights", "dense"]
    assert rows[2]["parameters"] < rows[1]["parameters"] == rows[0]["parameters"] == 266_610
    assert rows[2]["bytes"] == (tmp_path / "new" / "net.pt2").stat().st_size < rows[1]["bytes"]
    assert rows[2]["accuracy"] == rows[1]["accuracy"]
    assert difference < 1e-5
    assert all(row["ms_1"] > 0 and row["ms_batch"] > 0 for row in rows)


def test_a_smaller_network_with_other_outputs_is_not_written(tmp_path):
    # As many tokens as features: a trace cannot tell that the batch norm is of tokens.
    layers = [nn.Linear(8, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Flatten(), nn.Linear(25, 3)]
    net = bayesianize(nn.Sequential(*layers), LRT()).eval()
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    loader = [(torch.randn(4, 5, 8), torch.tensor([0, 1, 2, 0]))]
    with pytest.raises(ValueError, match=r"^network must have the same outputs when it is smaller, got logits that"):
        export_dense(net, masks_removing(net, 0.5), loader, tmp_path / "net.pt2", {})
    assert not (tmp_path / "net.pt2").exists()


def test_a_network_whose_outputs_are_nan_is_not_written(tmp_path):
    net = bayesianize(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), LRT()).eval()
    net[2].bias.mu.data[0] = torch.nan
    with pytest.raises(ValueError, match=r"^network must have finite outputs to be made smaller, got nan"):
        export_dense(
            net, masks_removing(net, 0.5), [(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]))], tmp_path / "a", {}
        )
    assert not list(tmp_path.iterdir())


def test_a_pruning_sweep_tells_what_each_share_costs():
    net = bayesianize(LeNet300100(), LRT())
    x = torch.randn(50, 1, 28, 28)
    with sampling(net, False), torch.no_grad():
        labels = net(x).argmax(-1)  # right for the mean weights
    rows = pruning_sweep(net, [(x, labels)], [0.0, 0.5, 1.0])
    assert rows[0]["accuracy"] == 1
    assert [row["kept"] for row in rows] == [266_200, 133_100, 0]
    ratios = torch.cat([(p.mu.abs() / p.sigma).flatten() for p in (net.fc1.weight, net.fc2.weight, net.fc3.weight)])
    assert rows[1]["min_signal_to_noise"] == pytest.approx(ratios.median().item(), rel=1e-3)
    assert rows[2]["min_signal_to_noise"] == float("inf")
    assert rows[2]["accuracy"] == (labels == net.fc3.bias.mu.argmax()).float().mean().item()
    assert kl(net) > 0  # still a Bayesian network


def test_a_signal_to_noise_that_no_number_holds_is_infinite():
    net = bayesianize(nn.Sequential(nn.Linear(4, 3)), LRT())
    with torch.no_grad():
        net[0].weight.mu.fill_(1.0)
        net[0].weight.rho.fill_(-800.0)  # sigma = exp(-800); the largest float64 is exp(709.8)
    row = pruning_sweep(net, [(torch.randn(5, 4), torch.zeros(5, dtype=torch.long))], [0.5])[0]
    assert (row["kept"], row["min_signal_to_noise"]) == (6, float("inf"))


def test_latencies_are_medians_of_turns_after_a_warm_up(monkeypatch):
    clock, turns = [0.0], []

    class Takes(nn.Module):
        def __init__(self, name, seconds):
            super().__init__()
            self.name, self.seconds = name, iter(seconds)

        def forward(self, x):
            turns.append(self.name)
            clock[0] += next(self.seconds)
            return x

    monkeypatch.setattr(dense, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    warm_up = [0.0] * 3  # which would lower the median
    rising = Takes("rising", [*warm_up, *(seconds / 1000 for seconds in range(1, 31))])
    steady = Takes("steady", [*warm_up, *[0.002] * 30])
    measured = dense.latencies({"rising": rising, "steady": steady}, torch.zeros(1))
    assert measured == pytest.approx({"rising": 16, "steady": 2})  # milliseconds, the upper median of 1 to 30
    assert turns == ["rising", "steady"] * 33
