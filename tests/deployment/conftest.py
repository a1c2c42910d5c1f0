"""Checkpoints that predictors are made of: the one that is committed, and small ones, written once a process."""

from pathlib import Path

import pytest

from bnn_lightning.cli import main
from tests.helpers import LENET, ROOT, SMALL

LENET_CKPT = ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt"

ROWS = "colour,age,size,price\n" + "".join(
    f"{'red' if row % 3 else 'blue'},{row % 17},{(row * 7) % 23},{2 * (row % 17) + (row * 7) % 23 + row % 3}\n"
    for row in range(200)
)


@pytest.fixture(scope="session")
def networks(tmp_path_factory):
    """A folder with two runs of a small network on digits, one of a table and one with noise on inputs."""
    folder = tmp_path_factory.mktemp("networks")
    small = ["--trainer.max_epochs", "1", "--data.batch_size", "64", *SMALL]
    table = ["--model.network", "TabularMLP", "--model.likelihood", "Gaussian", "--data", "Table"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("people.csv").write_text(ROWS)
        for seed in ("0", "1"):
            assert main(["fit", "--config", LENET, *small, "--seed_everything", seed, "--name", f"run{seed}"]) == 0
        words = ["--data.path", "people.csv", "--trainer.max_epochs", "3", "--name", "table"]
        assert main(["fit", *table, "--model.method", "LRT", *words]) == 0
        words = ["--model.method", "MCDropout", "--name", "dropout"]
        assert main(["fit", "--config", LENET, *small, *words]) == 0
    return folder / "checkpoints"
