import io
import subprocess
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from bnn_lightning import LRT, LeNet5Caffe, LeNet300100, ThreeConvThreeFC, bayesianize
from bnn_lightning.compression.pruning import export_dense, latencies, pruning_sweep
from bnn_lightning.compression.shrink import Select, shrink
from bnn_lightning.compression.sparsity import masks_without
from bnn_lightning.core.whole_network import kl, sampling
from bnn_lightning.deployment.pt2 import load_dense, write_dense


def thinned(net, kept=0.05):
    """Most weights 0, and of some units all incoming or all outgoing ones."""
    generator = torch.Generator().manual_seed(1)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)]
    with torch.no_grad():
        for layer in layers:
            layer.weight *= torch.rand(layer.weight.shape, generator=generator) < kept
            if layer.bias is not None:
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
        for layer in layers[:-1]:
            layer.weight[::4] = 0  # constants: positive and negative ones
        for layer in layers[1:]:
            layer.weight[:, 1::4] = 0
    return net.double().eval()


def parameters(net):
    return sum(parameter.numel() for parameter in net.parameters())


NETWORKS = {
    "LeNet300100": (LeNet300100, (3, 1, 28, 28)),
    "LeNet5Caffe": (LeNet5Caffe, (3, 1, 28, 28)),
    "softplus": (lambda: LeNet5Caffe(activation="softplus"), (3, 1, 28, 28)),
    "padded": (ThreeConvThreeFC, (3, 1, 32, 32)),  # constants cannot be folded through zero padding
    "padded_softplus": (lambda: ThreeConvThreeFC(activation="softplus"), (3, 1, 32, 32)),
    "conv1d_average": (
        lambda: nn.Sequential(
            nn.Sequential(nn.Conv1d(2, 8, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.AvgPool1d(2)),
            nn.Conv1d(8, 8, 3, padding=1, padding_mode="replicate"),
            nn.Sigmoid(),
            nn.Flatten(),
            nn.Linear(64, 3),
        ),
        (3, 2, 16),
    ),
    "no_biases": (
        lambda: nn.Sequential(nn.Linear(9, 9, bias=False), nn.Softplus(), nn.Linear(9, 4, bias=False)),
        (3, 9),
    ),
    "names_that_meet": (
        lambda: nn.Sequential(
            OrderedDict(
                a_b=nn.Linear(9, 9), a=nn.Sequential(OrderedDict(b=nn.Linear(9, 9))), act=nn.ReLU(), out=nn.Linear(9, 2)
            )
        ),
        (3, 9),
    ),
    "average_pooling_with_zeros": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.Sigmoid(),
            nn.AvgPool2d(3, 2, padding=1),
            nn.Conv2d(8, 8, 3),
            nn.Flatten(),
            nn.Linear(72, 3),
        ),
        (3, 1, 12, 12),
    ),
    "average_pooling_by_another_number": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.Sigmoid(), nn.AvgPool2d(2, divisor_override=1), nn.Flatten(), nn.Linear(72, 3)
        ),
        (3, 1, 8, 8),
    ),
    "groups": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.Flatten(), nn.Linear(128, 3)
        ),
        (3, 1, 8, 8),
    ),
    "batch_norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(288, 6),
            nn.BatchNorm1d(6),
            nn.Linear(6, 3),
        ),
        (3, 1, 8, 8),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smaller_network_has_the_same_outputs(name):
    make, shape = NETWORKS[name]
    net = thinned(make())
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    small = shrink(net)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(small(x), net(x), rtol=1e-10, atol=1e-10)
    assert parameters(small) < parameters(net)


def test_what_is_removed():
    net = thinned(LeNet300100(), kept=1.0)
    small = shrink(net)
    # A quarter of the units is constant and another has no reader: half are left.
    assert (small.fc1.out_features, small.fc2.in_features, small.fc2.out_features) == (150, 150, 50)
    with torch.no_grad():
        net.fc1.weight[:, 100:] = 0
    small = shrink(net)
    assert isinstance(small.fc1_select, Select)
    assert small.fc1.in_features == 100


def test_a_network_without_any_weight_keeps_its_constant():
    net = thinned(LeNet300100(), kept=0.0)
    small = shrink(net)
    x = torch.randn(2, 1, 28, 28, dtype=torch.float64)
    torch.testing.assert_close(small(x), net(x))
    assert parameters(small) < 50


def test_the_network_itself_is_left_alone():
    net = thinned(LeNet5Caffe())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shrink(net)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_is_no_chain_is_refused():
    with pytest.raises(ValueError, match=r"^network must be a chain .* got ResNet at layer\.$"):
        shrink(resnet18())
    with pytest.raises(ValueError, match=r"^network must have a Flatten between Conv1d and 1 to be made smaller\.$"):
        shrink(nn.Sequential(nn.Conv1d(1, 2, 3), nn.Linear(4, 2)))
    with pytest.raises(ValueError, match=r"^network must have no Flatten between Linear and 2 to be made smaller\.$"):
        shrink(nn.Sequential(nn.Linear(8, 4), nn.Flatten(), nn.Linear(12, 5)))

    class Residual(nn.Sequential):
        def forward(self, x):
            return x + super().forward(x)

    with pytest.raises(ValueError, match=r"^network must be a chain .* got Residual at 0\.$"):
        shrink(nn.Sequential(Residual(nn.Linear(3, 3)), nn.Linear(3, 2)))
    layer = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"^network uses 1 in two places; a smaller one is made of chains only\.$"):
        shrink(nn.Sequential(layer, layer))


def test_plain_torch_loads_the_file_for_any_batch_size(tmp_path):
    net = shrink(thinned(LeNet5Caffe())).float()
    x = torch.randn(7, 1, 28, 28)
    write_dense(net, tmp_path / "net.pt2", x[:2], {"classes": ["a"]})
    torch.save({"x": x, "y": net(x).detach()}, tmp_path / "expected.pt")
    code = (
        "import sys, torch; e = torch.load('expected.pt', weights_only=True); "
        "y = torch.export.load('net.pt2').module()(e['x']); torch.testing.assert_close(y, e['y']); "
        "assert not any(name.startswith('bnn_lightning') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


class Bomb:
    def __reduce__(self):
        return (print, ("this must not run",))


def rewritten(path, change):
    """The archive with its parts as ``change(name, content)`` gives them; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            if (changed := change(name, content)) is not None:
                archive.writestr(name, changed)


def pickled(value):
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def part(ending, change):
    return lambda name, content: change(content) if name.endswith(ending) else content


def written(path):
    chain = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        activation := nn.LeakyReLU(0.2),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 8, 3, stride=2, bias=False),
        activation,  # one module in two places
        nn.Softplus(beta=2),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, 4),
    )
    with torch.no_grad():
        chain[9].weight[:, 5:9] = 0
    net = shrink(chain)
    write_dense(net, path, torch.zeros(2, 1, 12, 12), {"data": None})
    return net


def test_an_export_of_a_stranger_runs_no_code(tmp_path, capsys):
    path = tmp_path / "net.pt2"
    net, x = written(path), torch.randn(5, 1, 12, 12)
    assert any(isinstance(module, Select) for module in net)
    torch.testing.assert_close(load_dense(path)(x), net(x))
    torch.testing.assert_close(load_dense(path)(x), torch.export.load(path).module()(x))
    # Pickles, and the graph with its expressions, which torch.export.load evaluates, are not looked at.
    rewritten(path, part("sample_inputs/model.pt", lambda _: pickled(((Bomb(),), {}))))
    rewritten(path, part("models/model.json", lambda _: b"__import__('os').abort()"))
    torch.testing.assert_close(load_dense(path)(x), net(x))
    assert "this must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "change",
    [
        part("bnn_lightning.json", lambda _: None),
        part("bnn_lightning.json", lambda content: content.replace(b'"AdaptiveAvg', b'"AdaptiveMax')),
        part("bnn_lightning.json", lambda content: content.replace(b'"MaxPool2d"', b'"__import__"')),
        part("bnn_lightning.json", lambda content: content.replace(b'"kernel_size"', b'"os.system"')),
        part("model_weights_config.json", lambda content: content.replace(b"weight_0", b"../../x")),
        part("model_weights_config.json", lambda content: content.replace(b'"as_int": 3}', b'"as_int": 4000000}')),
        part("weights/weight_0", lambda _: pickled(Bomb())),
        part("weights/weight_0", lambda _: b""),
    ],
)
def test_a_damaged_export_is_refused(tmp_path, change, capsys):
    path = tmp_path / "net.pt2"
    written(path)
    rewritten(path, change)
    with pytest.raises(ValueError, match=r"^.*net\.pt2 cannot be read as an exported network \(.+\)\.$"):
        load_dense(path)
    for content in (b"", b"PK nothing"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"^.*net\.pt2 cannot be read as an exported network"):
            load_dense(path)
    assert "this must not run" not in capsys.readouterr().out


def test_only_chains_of_known_layers_can_be_loaded_without_torch_export(tmp_path):
    write_dense(nn.Linear(3, 2), tmp_path / "net.pt2", torch.zeros(2, 3), {})
    with pytest.raises(ValueError, match="cannot be read as an exported network"):
        load_dense(tmp_path / "net.pt2")


def test_export_measures_the_three_networks(tmp_path):
    net = bayesianize(LeNet300100(), LRT())
    loader = [(torch.randn(1, 1, 28, 28), torch.tensor([1]))] * 2  # batches of one image, too
    keep = masks_without(net, 0.99)
    rows, difference = export_dense(net, keep, loader, tmp_path / "new" / "net.pt2", {})
    assert [row["network"] for row in rows] == ["mean weights", "kept weights", "dense"]
    assert rows[2]["parameters"] < rows[1]["parameters"] == rows[0]["parameters"] == 266_610
    assert rows[2]["bytes"] == (tmp_path / "new" / "net.pt2").stat().st_size < rows[1]["bytes"]
    assert rows[2]["accuracy"] == rows[1]["accuracy"]
    assert difference < 1e-5
    assert all(row["ms_1"] > 0 and row["ms_batch"] > 0 for row in rows)


def test_pruning_sweep():
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


def test_latencies_tell_a_slow_network_from_a_fast_one():
    slow = nn.Sequential(*(nn.Linear(300, 300) for _ in range(40)))
    found = latencies({"fast": nn.Linear(300, 300), "slow": slow}, torch.randn(100, 300))
    assert 0 < found["fast"] < found["slow"]
