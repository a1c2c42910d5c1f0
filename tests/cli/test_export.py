"""``bnn export``: the smaller dense network, and graphs of the predictive."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
from tests.deployment.conftest import LENET_CKPT
from tests.helpers import ON_THE_COMMAND_LINE, printed, table

pytestmark = ON_THE_COMMAND_LINE


def test_export_writes_a_network_that_plain_torch_loads(sparse, capsys):
    assert main(["export", "--ckpt_path", str(sparse), "--removed", "0.995"]) == 0
    out = printed(capsys)
    assert "Kept are the 0.5 % of weights with the highest |mu| / sigma:" in out
    assert "Largest difference of a logit between the dense network and the kept weights: " in out
    rows = table(Path("lightning_logs/sparse/version_0/export_last.csv"))
    assert int(rows[2]["parameters"]) < int(rows[1]["parameters"]) == 266_610
    assert int(rows[2]["bytes"]) == sparse.with_suffix(".pt2").stat().st_size
    record: dict[str, str] = {"bnn_lightning.json": ""}
    network = torch.export.load(sparse.with_suffix(".pt2"), extra_files=record).module()
    data = MNIST5k(image_size=28, normalize=False)
    data.setup("test")
    images, _ = next(iter(data.test_dataloader()))
    assert network(images).shape == (500, 10)
    assert json.loads(record["bnn_lightning.json"])["data"]["class_names"] == [str(digit) for digit in range(10)]


def test_a_graph_of_the_predictive_needs_no_images(capsys, monkeypatch):
    monkeypatch.setattr("bnn_lightning.cli.command_line.load_images", None)
    shutil.copy(LENET_CKPT, "lenet.ckpt")
    assert main(["export", "--ckpt_path", "lenet.ckpt", "--format", "pt2", "--what", "mean"]) == 0
    out = printed(capsys)
    assert "Input: pixels (batch, 1, 32, 32), uint8" in out
    assert "Outputs: probabilities, log_probs, entropy, expected_entropy, mutual_information, aleatoric, " in out
    assert f"Written: lenet.pt2, {Path('lenet.pt2').stat().st_size:,} bytes; torch.export.load(FILE)" in out
    record: dict[str, str] = {"bnn_lightning.json": ""}
    graph = torch.export.load("lenet.pt2", extra_files=record).module()
    digits = MNIST5k(image_size=32, normalize=False)
    digits.setup("test")
    images, labels = next(iter(digits.test_dataloader()))
    found = graph((255 * images).round().to(torch.uint8))
    assert (found["probabilities"].argmax(-1) == labels).float().mean() > 0.97
    said = json.loads(record["bnn_lightning.json"])
    assert (said["draws"], said["samples"], said["network"]) == ("mean", 1, "LeNet")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--what", "medians"],
            "--what must be moments, mean, ensemble, or samples:T such as samples:25, got medians.",
        ),
        (["--what", "ensemble"], "--what must be moments, mean or samples:T for a checkpoint of one network, got ens"),
        (
            ["--what", "mean", "--removed", "0.5"],
            "--removed is for the smaller network; --what mean removes no weights.",
        ),
        (["--format", "onnx", "--format.quantize", "int4"], "--format.quantize must be "),
        (
            ["--what", "mean", "--output", "a.onnx"],
            "--output a.onnx has the ending of onnx, and --format is pt2",
        ),
        (["--what", "mean", "--format", "onnx", "--output", "a.pt2"], "--output a.pt2 has the ending of pt2, and --fo"),
    ],
)
def test_what_cannot_be_written_is_refused_in_a_sentence(words, sentence, capsys):
    shutil.copy(LENET_CKPT, "lenet.ckpt")
    assert main(["export", "--ckpt_path", "lenet.ckpt", *words]) == 2
    assert f"bnn: error: {sentence}" in printed(capsys)
    assert not list(Path().glob("*.pt2")) + list(Path().glob("*.onnx"))


def test_an_export_that_is_stopped_leaves_nothing(capsys, monkeypatch):
    shutil.copy(LENET_CKPT, "lenet.ckpt")
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patched:
        patched.setattr("bnn_lightning.files.os.fsync", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["export", "--ckpt_path", "lenet.ckpt", "--what", "mean"]) == 128 + signal.SIGTERM
    assert "bnn: stopped by SIGTERM." in printed(capsys)
    assert sorted(path for path in Path().iterdir() if path.is_file()) == [Path("lenet.ckpt")]
    assert signal.getsignal(signal.SIGTERM) == handler
