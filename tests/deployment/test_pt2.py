"""The exported file: plain torch loads it, and a stranger's runs no code."""

import io
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from bnn_lightning import LeNet5Caffe
from bnn_lightning.compression.shrink import Select, shrink
from bnn_lightning.deployment.pt2 import Pt2, load_dense
from tests.compression.helpers import thinned
from tests.helpers import Bomb


def test_plain_torch_loads_the_file_for_any_batch_size(tmp_path):
    net = shrink(thinned(LeNet5Caffe())).float()
    x = torch.randn(7, 1, 28, 28)
    Pt2().write(net, tmp_path / "net.pt2", x[:2], {"classes": ["a"]})
    torch.save({"x": x, "y": net(x).detach()}, tmp_path / "expected.pt")
    code = (
        "import sys, torch; e = torch.load('expected.pt', weights_only=True); "
        "y = torch.export.load('net.pt2').module()(e['x']); torch.testing.assert_close(y, e['y']); "
        "assert not any(name.startswith('bnn_lightning') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


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
    Pt2().write(net, path, torch.zeros(2, 1, 12, 12), {"data": None})
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
    Pt2().write(nn.Linear(3, 2), tmp_path / "net.pt2", torch.zeros(2, 3), {})
    with pytest.raises(ValueError, match="cannot be read as an exported network"):
        load_dense(tmp_path / "net.pt2")
