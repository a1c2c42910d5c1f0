"""``bnn export``: the smaller dense network."""

import json
from pathlib import Path

import torch

from bnn_lightning.cli import main
from bnn_lightning.data import MNIST5k
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
