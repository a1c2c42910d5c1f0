"""The exported graph: its numbers are those of the Sampler, and onnxruntime's are torch's, for any batch."""

import json
import os
import subprocess
import sys

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from bnn_lightning import (
    LRT,
    Categorical,
    Ensemble,
    GaussianLikelihood,
    MCDropout,
    Onnx,
    Pt2,
    Sampler,
    Sampling,
    bayesianize,
    export_graph,
)
from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.checkpoints.record import Record
from bnn_lightning.deployment.exported import ExportedOnnx, ExportedPt2
from bnn_lightning.deployment.graph import predictive_graph
from bnn_lightning.likelihoods.categorical.calibration import Calibration, scaled
from bnn_lightning.networks import LeNet, ResNet20, ViTTiny
from tests.deployment.conftest import LENET_CKPT

# Both add the same float32 products in another order: some ten roundings of 6e-8 in five layers, on numbers near 1.
# log_probs are as large as 30 in size, and errors of logits come through: they have a tolerance of their own.
CLOSE = {"rtol": 1e-5, "atol": 5e-6}
DIGITS = {
    **{"name": "digits", "class_names": list("0123456789"), "image_size": 32, "channels": 1},
    **{"mean": [0.13], "std": [0.29], "notes": []},
}
COLOURS = DIGITS | {"channels": 3, "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "image_size": 16}


def calibration(temperature):
    return Calibration(temperature, torch.tensor([0.9, 0.5]), torch.tensor([True, False]), torch.tensor([0.1, 0.9]))


def trained(net, likelihood=None, **calibrated):
    return Trained(net.eval(), likelihood or Categorical(), Sampling(test_samples=3, seed=5), calibrated)


def lenet(seed=0):
    torch.manual_seed(seed)
    return bayesianize(LeNet(), LRT())


def record(data):
    return Record(LENET_CKPT, {}, {}, 0, None, {}, {}, data, None, {}, {})


def pixels(shape, count=7, seed=0):
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def in_onnxruntime(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.shape[0] == "batch"
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {given.name: x.numpy()}), strict=True))


@pytest.mark.parametrize(
    ("what", "draws"), [("moments", "moments"), ("mean", "mean"), ("samples:3", "weights"), ("ensemble", "moments")]
)
@pytest.mark.slow
def test_lenet_in_onnxruntime_says_what_our_sampler_says(tmp_path, what, draws):
    net = Ensemble([lenet(0), lenet(1)]) if what == "ensemble" else lenet()
    whole = trained(net, **{draws: calibration(1.7)})
    said = export_graph(record(DIGITS), whole, what, tmp_path / "net.onnx", Onnx())
    for count in (1, 7):
        x = pixels((1, 32, 32), count)
        found = in_onnxruntime(tmp_path / "net.onnx", x)
        assert list(found) == list(said["outputs"])
        prepared = (x / 255 - 0.13) / 0.29
        expected = whole.likelihood.summary(Sampler(net, 3, draws, seed=5)(prepared))
        expected["probabilities"] = expected["log_probs"].exp()
        expected["expected_entropy"] = expected["entropy"] - expected["mutual_information"]
        expected["calibrated_confidence"] = scaled(expected["log_probs"], 1.7).exp().amax(-1)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values.numpy(), **CLOSE, err_msg=name)
    assert said["samples"] == {"moments": 128, "mean": 1, "samples:3": 3, "ensemble": 128}[what]
    assert said["temperature"] == 1.7


@pytest.mark.slow
def test_a_residual_network_with_batch_norm_in_onnxruntime_and_in_torch(tmp_path):
    torch.manual_seed(0)
    net = bayesianize(ResNet20(in_channels=3), LRT())
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # not the statistics that it begins with
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    whole = trained(net)
    export_graph(record(COLOURS), whole, "moments", tmp_path / "net.onnx", Onnx())
    export_graph(record(COLOURS), whole, "mean", tmp_path / "net.pt2", Pt2())
    loaded = torch.export.load(tmp_path / "net.pt2").module()
    for count in (1, 7):
        x = pixels((3, 16, 16), count)
        with torch.no_grad():
            expected = predictive_graph(whole, COLOURS, "moments")(x)
            means = predictive_graph(whole, COLOURS, "mean")(x)
        found = in_onnxruntime(tmp_path / "net.onnx", x)
        assert "calibrated_confidence" not in found
        for name, values in expected.items():
            # Twenty layers, and variances that are differences: ten times as many roundings.
            np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, atol=5e-5, err_msg=name)
        for name, values in loaded(x).items():
            torch.testing.assert_close(values, means[name], msg=name)


TABLE = {"name": "Table", "columns": {"a": None, "b": None}, "mean": [3.0, -1.0], "std": [2.0, 0.5], "missing": "mean"}
TARGET = {"target_names": ["price"], "target_mean": [100.0], "target_std": [20.0]}


def test_a_network_of_numbers_in_the_units_of_its_targets(tmp_path):
    torch.manual_seed(0)
    likelihood = GaussianLikelihood(heteroscedastic=True)
    net = bayesianize(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2)), LRT())
    whole = trained(net, likelihood.for_data(TARGET))
    export_graph(record(TABLE | TARGET), whole, "moments", tmp_path / "net.onnx", Onnx())
    for count in (1, 7):
        x = torch.randn(count, 2, generator=torch.Generator().manual_seed(1)) * 2 + 3
        x[0, 1] = torch.nan  # no value: the mean
        prepared = ((x - torch.tensor([3.0, -1.0])) / torch.tensor([2.0, 0.5])).nan_to_num(0.0)
        expected = whole.likelihood.summary(Sampler(net, 3, "moments", seed=5)(prepared))
        found = in_onnxruntime(tmp_path / "net.onnx", x)
        for name, ours in {"mean": "mean", "aleatoric_std": "aleatoric", "epistemic_std": "epistemic"}.items():
            # Relative alone: numbers are of the size of the targets' own, 20 to 100.
            np.testing.assert_allclose(found[name], expected[ours].numpy(), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(found["std"] ** 2, found["aleatoric_std"] ** 2 + found["epistemic_std"] ** 2, 1e-5)
        assert (found["mean"] > 50).all()


@pytest.mark.slow
def test_a_file_runs_without_torch_and_says_what_it_is(tmp_path):
    whole = Trained.of(Record.read(LENET_CKPT))
    export_graph(Record.read(LENET_CKPT), whole, "mean", tmp_path / "net.onnx", Onnx())
    x = pixels((1, 32, 32), 5)
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import json, sys, numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession('net.onnx')\n"
        "p, = session.run(['probabilities'], {'pixels': numpy.load('x.npy')})\n"
        "assert not {'torch', 'bnn_lightning'} & set(sys.modules)\n"
        "print(json.dumps([session.get_modelmeta().custom_metadata_map, p.tolist()]))"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(
        words, cwd=tmp_path, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ""}
    )
    said, probabilities = json.loads(done.stdout)
    with torch.no_grad():
        expected = predictive_graph(whole, Record.read(LENET_CKPT).data, "mean")(x)["probabilities"]
    np.testing.assert_allclose(np.array(probabilities), expected.numpy(), **CLOSE)
    assert said["network"] == "LeNet"
    assert said["method"] == "LRT"
    assert said["opset"] == "18"
    assert said["format_version"] == "1"
    assert said["what"] == "mean"
    assert json.loads(said["class_names"]) == list("0123456789")
    data = json.loads(said["data"])
    assert (data["image_size"], data["channels"], data["mean"]) == (32, 1, [0.13098879418466608])
    assert float(said["temperature"]) == whole.calibration["mean"].temperature
    content = (tmp_path / "net.onnx").read_bytes()
    assert b"site-packages" not in content  # the exporter's notes of source lines
    assert b"/bnn_lightning/" not in content


@pytest.mark.parametrize(
    ("net", "what", "sentence"),
    [
        (lenet, "medians", r"^what must be moments, mean, ensemble, or samples:T such as samples:25, got medians\.$"),
        (lenet, "samples:0", r"^what must be .*, got samples:0\.$"),
        (lenet, "ensemble", r"^what must be moments, mean or samples:T for a checkpoint of one network, got ensemble;"),
        (LeNet, "moments", r"^what must be mean for networks without random layers, got moments\.$"),
        (LeNet, "samples:3", r"^what must be mean for networks without random layers, got samples:3\.$"),
        (
            lambda: bayesianize(LeNet(), MCDropout()),
            "samples:3",
            r"^what must be moments or mean for MCDropout, whose noise is not on weights, got samples:3\.$",
        ),
        (
            lambda: bayesianize(LeNet(), MCDropout(mask="channel")),
            "samples:3",
            r"^what must be mean for MCDropout, whose noise is not on weights, got samples:3\.$",
        ),
        (
            lambda: bayesianize(LeNet(), MCDropout(mask="channel")),
            "moments",
            r"^what must be mean for a network whose conv1 \(Conv2d\) has noise that is shared",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_sentence(net, what, sentence):
    with pytest.raises(ValueError, match=sentence):
        predictive_graph(trained(net()), DIGITS, what)


def test_examples_that_nobody_describes_are_refused():
    with pytest.raises(ValueError, match=r"^ckpt_path must be of a checkpoint that says how its examples are prepared"):
        predictive_graph(trained(lenet()), {"name": "Mine"}, "mean")


class ByValue(nn.Module):
    """What torch.export cannot take."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else -self.fc(x)


@pytest.mark.parametrize("file_format", [Pt2(), Onnx()])
def test_a_network_that_torch_export_refuses_is_refused_in_a_sentence(tmp_path, file_format, capfd):
    with pytest.raises(ValueError, match=r"^network must be one that torch.export takes, got an error: [^\n]+\.$"):
        file_format.write(ByValue(), tmp_path / "net", torch.zeros(2, 4), {})
    assert "torch.ops.aten" not in "".join(capfd.readouterr())  # torch would print the graph
    assert not (tmp_path / "net").exists()


class FixedBatch(nn.Module):
    """What makes a number of the batch's size."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 4))

    def forward(self, x):
        return x + self.token.expand(len(x), -1)


def test_a_network_that_fixes_the_size_of_the_batch_is_refused_with_the_cure(tmp_path):
    with pytest.raises(
        ValueError, match=r"^network must be one that takes batches of any size .* x\.shape\[0\] in the"
    ):
        Pt2().write(FixedBatch(), tmp_path / "net", torch.zeros(2, 4), {})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:these weights are of no layer")
@pytest.mark.parametrize("file_format", [Pt2(), Onnx()])
def test_a_transformer_is_exported(tmp_path, file_format):
    torch.manual_seed(0)
    whole, path = trained(bayesianize(ViTTiny(image_size=16, depth=1), LRT())), tmp_path / f"net{file_format.ending}"
    export_graph(record(COLOURS), whole, "samples:2", path, file_format)
    read = (ExportedPt2 if file_format.ending == ".pt2" else ExportedOnnx)(path)
    graph = predictive_graph(whole, COLOURS, "samples:2")
    for count in (1, 3):
        x = pixels((3, 16, 16), count)
        with torch.no_grad():
            expected = graph(x)
        for name, values in zip(read.names, read._outputs(x), strict=True):
            torch.testing.assert_close(torch.as_tensor(values), expected[name], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"^what must be mean or samples:T for a network with blocks\.0\.attention"):
        predictive_graph(whole, COLOURS, "moments")


def test_a_missing_library_is_named_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("bnn_lightning.deployment.onnx.find_spec", lambda name: None if name == "onnxscript" else name)
    sentence = (
        r"^ONNX needs onnxscript, which is not installed\. Install it with: pip install 'bnn_lightning\[export\]'$"
    )
    with pytest.raises(ImportError, match=sentence):
        Onnx().write(nn.Linear(3, 2), tmp_path / "net.onnx", torch.zeros(2, 3), {})


def test_a_plain_network_is_written_too_and_int8_makes_it_smaller(tmp_path):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8)), torch.randn(7, 64)
    Onnx().write(net, tmp_path / "net.onnx", x[:2], {"checkpoint": "a"})
    Onnx(quantize="int8").write(net, tmp_path / "small.onnx", x[:2], {})
    with torch.no_grad():
        y = net(x).numpy()
    np.testing.assert_allclose(in_onnxruntime(tmp_path / "net.onnx", x)["outputs"], y, **CLOSE)
    # 256 steps of weights and of inputs, each of some 4 standard deviations either way: 1 % of each product at most.
    rounded = in_onnxruntime(tmp_path / "small.onnx", x)["outputs"]
    assert 0 < np.abs(rounded - y).max() < 0.05 * np.abs(y).max()
    assert (tmp_path / "small.onnx").stat().st_size < (tmp_path / "net.onnx").stat().st_size / 2
    with pytest.raises(ValueError, match=r"^quantize must be int8 or null, got int4\.$"):
        Onnx(quantize="int4")
