"""Exports of networks as users write them: that flatten by view, and that change their inputs in place."""

import pytest
import torch
from torch import nn

from bnn_lightning import BBB, Categorical, Ensemble, Sampling, Variational
from bnn_lightning.checkpoints.parts import Trained, build_network
from bnn_lightning.compression.pruning import logits_and_labels
from bnn_lightning.compression.sparsity import masks_removing
from bnn_lightning.core.conversion import to_plain
from bnn_lightning.deployment.dense import export_dense
from bnn_lightning.deployment.graph import predictive_graph

DATA = {"mean": [0.5] * 3, "std": [0.5] * 3, "channels": 3, "image_size": 8}


class Net(nn.Module):
    """Two convolutions.

    Args:
        views: whether ``view`` flattens what they give, else ``flatten``.
        in_place: whether inputs are moved in place.
    """

    def __init__(self, views, in_place):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(64, 5)
        self.views, self.in_place = views, in_place

    def forward(self, x):
        if self.in_place:
            x -= 0.5
            x *= 3
        else:
            x = (x - 0.5) * 3
        x = self.second(self.first(x).relu()).relu()
        return self.fc(x.view(x.size(0), -1) if self.views else x.flatten(1))


def members(views, in_place):
    torch.manual_seed(0)
    nets = [build_network(Net(views, in_place), BBB(), Variational(), "*", 1, False) for _ in range(2)]
    return [net.eval() for net in nets]


@pytest.mark.parametrize("what", ["mean", "moments", "samples:3", "ensemble"])
def test_graphs_say_the_same_however_a_network_is_written(what):
    x = torch.arange(2 * 3 * 64, dtype=torch.uint8).view(2, 3, 8, 8)
    said = []
    # Weights are drawn in the order of memory, which is another one where a network views.
    for views, in_place in ((what == "samples:3", False), (True, True)):
        nets = members(views, in_place)
        network = Ensemble(nets) if what in ("ensemble", "samples:3") else nets[0]
        graph = predictive_graph(Trained(network, Categorical(), Sampling(), {}), DATA, what)
        with torch.no_grad():
            said.append(graph(x)["log_probs"])
    torch.testing.assert_close(said[1], said[0], rtol=1e-4, atol=1e-5)


def test_a_network_that_views_is_pruned_and_exported_smaller(tmp_path):
    x, y = torch.randn(6, 3, 8, 8), torch.arange(6) % 5
    rows = []
    for views in (True, False):
        net = members(views, in_place=False)[0]
        logits, _ = logits_and_labels(to_plain(net, masks_removing(net, 0.5)), [(x, y)])
        table, difference = export_dense(net, masks_removing(net, 0.5), [(x, y)], tmp_path / "dense.pt2", {})
        assert difference < 1e-4
        rows.append((logits, [row["parameters"] for row in table]))
    torch.testing.assert_close(rows[0][0], rows[1][0], rtol=1e-4, atol=1e-5)
    assert rows[0][1] == rows[1][1]
