"""Folders in which networks have been trained on the command line: once for each process of the tests."""

import shutil
from pathlib import Path

import pytest

from bnn_lightning.cli import main
from tests.helpers import LENET, ROOT, SMALL


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder in which a LeNet has been trained for two epochs; tests work in a copy."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", LENET, *SMALL, "--trainer.max_epochs", "2"]) == 0
    return folder


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return Path("checkpoints/lenet_lrt_mnist5k/version_0")


@pytest.fixture(scope="session")
def trained_sparse(tmp_path_factory):
    """A folder in which a sparse LeNet-300-100 and a deterministic LeNet have been trained for an epoch."""
    folder = tmp_path_factory.mktemp("sparse")
    config = str(ROOT / "configs" / "lenet300100_svd.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", "--config", config, *SMALL, "--name", "sparse", "--trainer.max_epochs", "1"]) == 0
        words = ["--model.method", "null", "--name", "twin", "--trainer.max_epochs", "1"]
        assert main(["fit", "--config", LENET, *SMALL, *words]) == 0
    return folder


@pytest.fixture
def sparse(trained_sparse, tmp_path):
    shutil.copytree(trained_sparse, tmp_path, dirs_exist_ok=True)
    return Path("checkpoints/sparse/version_0/last.ckpt")
