"""A Predictor of an .onnx export says what the Predictor of its checkpoint says; other files are refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bnn_lightning import Onnx, Predictor, export_graph
from bnn_lightning.checkpoints.parts import Trained
from bnn_lightning.checkpoints.record import CheckpointError, Record
from tests.deployment.conftest import LENET_CKPT

CLOSE = {"rtol": 1e-5, "atol": 5e-6}  # see test_graph.py


def exported(checkpoint, what, folder):
    record = Record.read(checkpoint)
    export_graph(record, Trained.of(record), what, folder / "net.onnx", Onnx())
    return folder / "net.onnx"


def compare(found, expected):
    assert type(found) is type(expected)
    for name, values in vars(expected).items():
        if isinstance(values, np.ndarray) and values.dtype.kind == "f":
            np.testing.assert_allclose(getattr(found, name), values, **CLOSE, err_msg=name)
        else:
            np.testing.assert_array_equal(getattr(found, name), values, err_msg=name)


@pytest.mark.slow
def test_a_predictor_of_an_export_says_what_that_of_the_checkpoint_says(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28), dtype=np.uint8)
    predictor = Predictor.load(exported(LENET_CKPT, "mean", tmp_path), target_risk=0.02, alpha=0.1)
    expected = Predictor.load(LENET_CKPT, draws="mean", target_risk=0.02, alpha=0.1)
    compare(predictor(images), expected(images))
    assert predictor.rule == expected.rule
    assert predictor(images).accepted is not None


@pytest.mark.slow
def test_so_does_that_of_a_table(tmp_path, networks):
    (checkpoint,) = networks.glob("table/*/best.ckpt")
    rows = [{"colour": "red", "age": 3, "size": 4}, {"colour": "blue", "age": 12, "size": 20}]
    predictor = Predictor.load(exported(checkpoint, "moments", tmp_path))
    compare(predictor(rows), Predictor.load(checkpoint, draws="moments")(rows))


def test_files_that_are_none_are_refused(tmp_path):
    file = tmp_path / "net.onnx"
    with pytest.raises(CheckpointError, match=r"^there is no file .*net\.onnx\.$"):
        Predictor.load(file)
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"^.*net\.onnx cannot be read as an ONNX file \(.*\)\.$"):
        Predictor.load(file)
    Onnx().write(torch.nn.Linear(3, 2), file, torch.zeros(2, 3), {})
    with pytest.raises(CheckpointError, match=r"^.*net\.onnx holds no graph that bnn export --what of this release"):
        Predictor.load(file)
    with pytest.raises(
        ValueError, match=r"^samples must be None for .*net\.onnx, whose samples are in the file, got 3"
    ):
        Predictor.load(file, samples=3)
    with pytest.raises(ValueError, match=r"^device must be cpu for .*net\.onnx, got cuda\.$"):
        Predictor.load(file, device="cuda")
    with pytest.raises(
        CheckpointError, match=r"^path must be a checkpoint or an \.onnx file, got net\.pt2: a \.pt2 file"
    ):
        Predictor.load(Path("net.pt2"))
