"""The published sets, read from their files without torchvision's loaders."""

import gzip
import pickle
import re

import numpy as np
import pytest
import torch

from bnn_lightning.data import CIFAR10, MNIST, SVHN, DataNotFoundError
from tests.helpers import Bomb


def test_mnist_has_48000_training_images(fake_mnist):
    # The N of the objective, with 20 % held out; all 60,000 would count images that nobody trains on.
    data = MNIST(fake_mnist(train=60_000, test=1))
    data.setup("fit")
    assert data.num_train == 48_000
    assert (len(data.selection), len(data.calibration)) == (6000, 6000)
    assert len(data.train_dataloader()) == 188


def test_gzipped_files_are_found_where_the_environment_variable_says(fake_mnist, monkeypatch):
    root = fake_mnist()
    monkeypatch.setenv("BNN_DATA", root)
    data = MNIST()
    raw = data.root / "MNIST" / "raw"
    plain = data.load_test()
    for path in list(raw.iterdir()):
        (raw / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert torch.equal(data.load_test().pixels, plain.pixels)


def test_not_found_says_what_where_and_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "torchvision.datasets.MNIST.__init__", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("no net"))
    )
    folder = tmp_path / "MNIST" / "raw"
    message = (
        f"MNIST was not found: looked for t10k-images-idx3-ubyte[.gz] and t10k-labels-idx1-ubyte[.gz] in {folder}, "
        "and downloading failed (no net). Put the files there, or name their folder with --data.root or BNN_DATA; "
        "`--data MNIST5k` works without the internet. Pictures of your own are --data ImageFolder."
    )
    with pytest.raises(DataNotFoundError, match=f"^{re.escape(message)}$"):
        MNIST(str(tmp_path)).setup("test")


def write_cifar(folder, payload=None):
    rng = np.random.default_rng(0)
    for name, _ in CIFAR10._dataset.train_list + CIFAR10._dataset.test_list:
        batch = {b"data": rng.integers(0, 256, (20, 3072), dtype=np.uint8), b"labels": list(range(10)) * 2}
        (folder / "cifar-10-batches-py").mkdir(parents=True, exist_ok=True)
        (folder / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(payload or batch))


def test_cifar_with_other_checksums_is_read_and_noted(tmp_path):
    write_cifar(tmp_path)
    data = CIFAR10(str(tmp_path))
    with pytest.warns(
        UserWarning, match="is not the published file: results carry the note 'unofficial pixels'"
    ) as seen:
        data.setup()
    assert len(seen) == 1
    assert data.notes == ["unofficial pixels"]
    assert data.describe()["notes"] == ["unofficial pixels"]
    assert (data.num_train, data.in_channels, data.num_classes, data.train.pixels.shape[1:]) == (80, 3, 10, (3, 32, 32))


def test_a_pickle_that_calls_a_function_is_refused(tmp_path, capsys):
    write_cifar(tmp_path, Bomb())
    with (
        pytest.warns(UserWarning, match="unofficial"),
        pytest.raises(ValueError, match=r"is not a CIFAR batch \(it names builtins\.print"),
    ):
        CIFAR10(str(tmp_path)).setup("test")
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("ignore:.*too small")
def test_the_label_10_of_svhn_is_the_digit_0(tmp_path):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 32, 3, 30), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.arange(30).reshape(-1, 1) % 10 + 1})
    data = SVHN(str(tmp_path))
    data.setup()
    assert data.test.labels[:10].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]
    np.testing.assert_array_equal(data.test.pixels[3].permute(1, 2, 0).numpy(), pixels[..., 3])


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(200), b"x" * 500])
def test_a_damaged_file_of_svhn_is_named(tmp_path, content):
    for split in ("train", "test"):
        (tmp_path / f"{split}_32x32.mat").write_bytes(content)
    with pytest.raises(ValueError, match=r"train_32x32\.mat is not a file of SVHN \(.*\); fetch it again\.$"):
        SVHN(str(tmp_path)).setup("fit")
