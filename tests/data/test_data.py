import gzip
import io
import itertools
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning.data import (
    CIFAR10,
    MNIST,
    SVHN,
    BatchLoader,
    DataNotFoundError,
    FashionMNIST,
    ImageFolder,
    Images,
    MNIST5k,
    NotMNIST,
    RenderedLetters,
)
from bnn_lightning.data.base import stratified_split
from bnn_lightning.data.corruptions import KINDS, SEVERITIES, corrupted
from bnn_lightning.data.idx import read_idx, read_labelled
from bnn_lightning.data.loader import EpochSampler
from bnn_lightning.data.notmnist import letter_fonts, read_letters
from tests.helpers import write_idx


@pytest.fixture(scope="module")
def digits():
    data = MNIST5k(image_size=32)
    data.setup()
    return data


def test_mnist_has_48000_training_images(fake_mnist):
    # T1.4
    data = MNIST(fake_mnist(train=60_000, test=1))
    data.setup("fit")
    assert data.num_train == 48_000
    assert (len(data.selection), len(data.calibration)) == (6000, 6000)
    assert len(data.train_dataloader()) == 188


def test_mnist5k_sizes(digits):
    assert (digits.num_train, len(digits.selection), len(digits.calibration), len(digits.test)) == (
        3200,
        400,
        400,
        1000,
    )
    assert digits.test.labels.bincount().tolist() == [100] * 10
    assert digits.train.labels.bincount().tolist() == [320] * 10


def test_parts_are_disjoint_and_stratified(digits):
    # T1.8: no image stands in two parts, and validation is not a prefix of training.
    parts = [digits.train, digits.selection, digits.calibration, digits.test]
    rows = [{row.tobytes() for row in part.pixels.flatten(1).numpy()} for part in parts]
    assert sum(map(len, rows)) == len(set().union(*rows))
    assert not torch.equal(digits.selection.pixels, digits.train.pixels[: len(digits.selection)])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5])
def test_stratified_split(share):
    labels = torch.randint(0, 7, (1003,))
    chosen, rest = stratified_split(labels, share, seed=3)
    assert len(chosen) == round(share * 1003)
    assert sorted([*chosen.tolist(), *rest.tolist()]) == list(range(1003))
    counts = labels[chosen].bincount(minlength=7)
    assert ((counts - share * labels.bincount()).abs() <= 1).all()
    assert torch.equal(chosen, stratified_split(labels, share, seed=3)[0])
    if share:
        assert not torch.equal(chosen, stratified_split(labels, share, seed=4)[0])


def test_training_images_are_normalised(digits):
    # 7.4: catches a missing division by 255 as well as a second one.
    x = torch.cat([batch for batch, _ in digits.train_dataloader()])
    assert abs(x.mean().item()) < 0.05
    assert abs(x.std().item() - 1) < 0.05
    assert x.abs().max() < 10
    assert x.shape == (3200, 1, 32, 32)
    assert x.dtype == torch.float32


def test_test_images_get_the_training_constants(digits):
    other = MNIST5k(image_size=32)
    other.setup("test")  # alone, as bnn test does it
    assert (other.mean, other.std) == (digits.mean, digits.std)
    x = torch.cat([batch for batch, _ in other.test_dataloader()])
    raw = digits.test.pixels.double() / 255
    torch.testing.assert_close(x.double(), (raw - digits.mean[0]) / digits.std[0], atol=1e-5, rtol=0)


def test_mean_and_std_against_numpy():
    images = Images(torch.randint(0, 256, (20, 3, 5, 5), dtype=torch.uint8), torch.zeros(20, dtype=torch.int64))
    mean, std = images.mean_and_std()
    scaled = images.pixels.numpy() / 255
    np.testing.assert_allclose(mean, scaled.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(std, scaled.std((0, 2, 3)), rtol=1e-9)


def loader(count=10, batch_size=4, **settings):
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    sampler = EpochSampler(count, shuffle=True, seed=5, **settings)
    return BatchLoader(Images(pixels, torch.arange(count)), batch_size, [0.0], [1 / 255], sampler)


def order(batches):
    return torch.cat([labels for _, labels in batches]).tolist()


def test_order_is_a_function_of_seed_and_epoch():
    one, two = loader(), loader()
    first = order(one)
    assert sorted(first) == list(range(10))
    assert first != list(range(10))
    other = loader()
    other.sampler.seed = 6
    assert order(other) != first
    one.sampler.set_epoch(1)
    assert order(one) != first
    assert order(two) == first
    one.sampler.set_epoch(1)
    assert order(two) == order(one)  # without Lightning, the next pass is the next epoch
    x, labels = next(iter(loader()))
    assert torch.equal(x[:, 0, 0, 0].long(), labels)


def test_processes_share_an_epoch_without_repeats():
    ranks = [loader(rank=rank, world_size=3) for rank in range(3)]
    seen = [order(rank) for rank in ranks]
    assert [len(part) for part in seen] == [3, 3, 3]
    assert len(set(itertools.chain(*seen))) == 9
    evaluation = [EpochSampler(10, shuffle=False, rank=rank, world_size=3) for rank in range(3)]
    seen = [sampler.order().tolist() for sampler in evaluation]
    assert sorted(itertools.chain(*seen)) == list(range(10))
    assert [len(sampler) for sampler in evaluation] == [4, 3, 3]


def test_a_last_training_batch_of_one_is_left_out():
    assert [len(labels) for _, labels in loader(count=9, batch_size=4)] == [4, 4]
    assert len(loader(count=9, batch_size=4)) == 2
    assert [len(labels) for _, labels in loader(count=10, batch_size=4)] == [4, 4, 2]
    assert len(loader(count=1, batch_size=4)) == 1


def test_augmentation_crops_and_flips_training_batches_only(digits):
    data = MNIST5k(crop_padding=2, flip=True)
    data.setup()
    plain, augmented = data.train.pixels, data.train_dataloader()
    index = augmented.sampler.order()[: data.batch_size]
    x, labels = next(iter(augmented))
    assert torch.equal(labels, data.train.labels[index])
    shown = ((x + augmented.shift) / augmented.scale).round().to(torch.uint8)
    padded = torch.nn.functional.pad(plain[index], (2, 2, 2, 2))
    found = []
    for image, source in zip(shown[:50], padded[:50], strict=True):
        places = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if torch.equal(image.flip(2) if flip else image, source[:, top : top + 28, left : left + 28])
        ]
        assert places  # every augmented image is a crop of its own source
        found.append(places[0])
    assert len(set(found)) > 10
    assert torch.equal(next(iter(data.test_dataloader()))[0], next(iter(data.test_dataloader()))[0])


def test_train_subset_comes_first_in_file_order(fake_mnist):
    data = FashionMNIST(fake_mnist(name="FashionMNIST"), train_subset=[50, 150], val_split=0.1)
    data.setup("fit")
    whole = read_idx(data.root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte", 3)[50:150]
    used = torch.cat([part.pixels[:, 0] for part in (data.train, data.selection, data.calibration)])
    assert data.num_train == 90
    assert {row.tobytes() for row in used.numpy()} == {row.tobytes() for row in whole.numpy()}
    with pytest.raises(ValueError, match=r"^train_subset must lie within the 200 training images, got 201\.$"):
        FashionMNIST(str(data.root), train_subset=201).setup("fit")


def test_no_hold_out(fake_mnist):
    data = MNIST(fake_mnist(), val_split=0)
    data.setup("fit")
    assert data.num_train == 200
    assert data.val_dataloader() == []


def test_gzipped_files_and_the_environment_variable(fake_mnist, monkeypatch):
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
        "`--data MNIST5k` works without the internet."
    )
    with pytest.raises(DataNotFoundError, match=f"^{re.escape(message)}$"):
        MNIST(str(tmp_path)).setup("test")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x00\x00\x08\x01\x00\x00\x00\x05abc", "must hold 5 bytes for shape [5], got 3."),
        (b"\x00\x00\x0d\x01\x00\x00\x00\x01a", "must be an IDX file of unsigned bytes with 1 dimensions"),
        (b"", "must be an IDX file"),
    ],
)
def test_damaged_idx_files(tmp_path, content, message):
    path = tmp_path / "labels"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        read_idx(path, 1)
    assert str(path) in str(error.value)


def test_images_and_labels_that_do_not_fit_together(tmp_path):
    images, labels = tmp_path / "images", tmp_path / "labels"
    for pixels, classes, message in (
        (np.zeros((3, 28, 28)), np.zeros(2), r"labels must hold a label for each of the 3 images, got 2\.$"),
        (np.zeros((3, 28, 27)), np.zeros(3), r"images must hold images of 28x28 pixels, got 28x27\.$"),
        (np.zeros((3, 28, 28)), np.full(3, 10), r"labels must hold labels from 0 to 9, got 10\.$"),
        (np.zeros((0, 28, 28)), np.zeros(0), r"images must hold from 1 to .* bytes, its header says \[0, 28, 28\]\.$"),
    ):
        write_idx(images, pixels)
        write_idx(labels, classes)
        with pytest.raises(ValueError, match=message):
            read_labelled(images, labels, 28, 10)


def test_a_small_gzip_file_that_claims_to_be_huge(tmp_path):
    path = tmp_path / "images.gz"
    header = bytes([0, 0, 8, 3]) + 3 * (2**31).to_bytes(4, "big")
    path.write_bytes(gzip.compress(header + bytes(10**6)))
    with pytest.raises(ValueError, match=r"images\.gz must hold from 1 to 1,073,741,824 bytes, its header says"):
        read_idx(path, 3)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "labels.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 3, 232]) + os.urandom(1000))[:-90])
    with pytest.raises(ValueError, match=r"labels\.gz is not a whole gzip file"):
        read_idx(path, 1)


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


class Bomb:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_pickle_that_calls_a_function_is_refused(tmp_path, capsys):
    write_cifar(tmp_path, Bomb())
    with (
        pytest.warns(UserWarning, match="unofficial"),
        pytest.raises(ValueError, match=r"is not a CIFAR batch \(it names builtins\.print"),
    ):
        CIFAR10(str(tmp_path)).setup("test")
    assert capsys.readouterr().out == ""


def test_svhn(tmp_path):
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


def test_notmnist_removes_repeats_before_its_split(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (100, 28, 28))
    images[50:60] = images[:10]
    write_idx(tmp_path / "notMNIST" / "t10k-images-idx3-ubyte", images)
    write_idx(tmp_path / "notMNIST" / "t10k-labels-idx1-ubyte", np.arange(100) % 10)
    data = NotMNIST(str(tmp_path), val_split=0)
    data.setup()
    assert (data.num_train, len(data.test)) == (72, 18)
    rows = {row.tobytes() for part in (data.train, data.test) for row in part.pixels.flatten(1).numpy()}
    assert len(rows) == 90
    with pytest.raises(DataNotFoundError, match="NotMNIST was not found: looked for notMNIST_small"):
        NotMNIST(str(tmp_path / "elsewhere")).setup()


def write_archive(path, members):
    """A .tar.gz of (name, content); a content that is a TarInfo's type makes a member of that kind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes) and len(content) > 1:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = content, "/etc/passwd"
                archive.addfile(member)


def png(value, size=(28, 28)):
    stream = io.BytesIO()
    Image.new("L", size, value).save(stream, "PNG")
    return stream.getvalue()


def test_notmnist_from_the_original_archive_counts_what_cannot_be_read(tmp_path):
    letters = [
        (f"notMNIST_small/{letter}/{n}.png", png(10 * label + n))
        for label, letter in enumerate("ABCDEFGHIJ")
        for n in range(5)
    ]
    bad = [
        ("notMNIST_small/A/empty.png", b"no picture"),
        ("notMNIST_small/F/cut.png", png(7)[:50]),
        ("notMNIST_small/B/large.png", png(7, (280, 28))),
        ("notMNIST_small/C/huge.png", b"x" * 100_001),
    ]
    others = [("notMNIST_small/A/._hidden.png", b"of a Mac"), ("notMNIST_small/readme.txt", b"letters")]
    write_archive(tmp_path / "notMNIST" / "notMNIST_small.tar.gz", [*letters, *bad, *others])
    data = NotMNIST(str(tmp_path), val_split=0)
    with pytest.warns(UserWarning, match=r"4 unreadable files of notMNIST_small\.tar\.gz left out"):
        images = data.load_ood()
    assert images.labels.bincount().tolist() == [5] * 10
    assert (images.pixels[:, 0, 0, 0] // 10 == images.labels).all()
    reasons = {path.name: reason for path, reason in data.unreadable.items()}
    assert reasons.keys() == {"empty.png", "cut.png", "large.png", "huge.png"}
    assert reasons["empty.png"] == "it is no PNG picture"
    assert reasons["large.png"] == "it has 280x28 pixels, not 28x28"
    assert data.notes == ["4 unreadable files of notMNIST_small.tar.gz left out"]
    assert list(tmp_path.rglob("*.png")) == []  # it is read as it is, and not unpacked


@pytest.mark.parametrize(
    "member",
    [
        ("../A/a.png", png(1)),
        ("/A/a.png", png(1)),
        ("A/a.png", tarfile.SYMTYPE),
        ("A/a.png", tarfile.LNKTYPE),
        ("A/a.png", tarfile.CHRTYPE),
    ],
)
def test_an_archive_that_could_do_harm_is_refused(tmp_path, member):
    path = tmp_path / "notMNIST" / "notMNIST_small.tar.gz"
    write_archive(path, [("A/0.png", png(0)), member])
    with pytest.raises(ValueError, match="a link, a device or a path out of its folder"):
        read_letters(path)


def test_archives_that_are_none(tmp_path):
    whole = tmp_path / "whole.tar.gz"
    write_archive(whole, [(f"A/{n}.png", os.urandom(5000)) for n in range(20)])
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:20_000])
    (tmp_path / "none.tar.gz").write_bytes(b"nothing")
    for path in (cut, tmp_path / "none.tar.gz"):
        with pytest.raises(ValueError, match=r"is not a whole \.tar\.gz archive"):
            read_letters(path)
    with pytest.raises(ValueError, match="got none that can be read"):
        read_letters(whole)


def test_an_archive_that_is_damaged_within_is_refused(tmp_path):
    path = tmp_path / "letters.tar.gz"
    write_archive(path, [(f"A/{n}.png", png(n)) for n in range(20)])
    assert len(read_letters(path)[0]) == 20
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[10 * 1024 + 100] ^= 1  # in the header of a member, which tarfile then takes for the end
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(ValueError, match=r"is not a whole \.tar\.gz archive \(damaged after 10 pictures\)"):
        read_letters(path)
    path.write_bytes(gzip.compress(bytes(content[:10240]))[:-8] + bytes(8))  # gzip's checksum
    with pytest.raises(ValueError, match=r"is not a whole \.tar\.gz archive \(CRC check failed"):
        read_letters(path)


def test_rendered_letters_are_always_the_same_and_named_as_that():
    data = RenderedLetters(val_split=0)
    images = data.load_ood()
    assert images.labels.bincount().tolist() == [len(letter_fonts()) * 8] * 10
    assert len(letter_fonts()) >= 20
    assert images.pixels.flatten(1).amax(1).min() > 100  # no font without these letters
    assert torch.equal(images.pixels, RenderedLetters().load_ood().pixels)
    assert data.notes == ["letters rendered from fonts, not notMNIST"]
    data.setup()
    assert len(data.test) + data.num_train == len(images)


def test_test_sets_are_prepared_like_the_test_images(digits):
    other = RenderedLetters(image_size=16, channels=3)
    data = MNIST5k(image_size=32, ood=[other, RenderedLetters()], corruptions=True)
    data.setup("test")
    names = list(data.test_sets)
    assert names[:4] == ["MNIST5k", "ood/RenderedLetters", "ood/RenderedLetters-2", "clean/0"]
    assert names[4:] == [f"{kind}/{severity}" for kind in KINDS for severity in range(1, 6)]
    loaders = data.test_dataloader()
    assert len(loaders) == len(names)
    x, _ = next(iter(loaders[1]))
    assert x.shape == (500, 1, 32, 32)
    black = -digits.mean[0] / digits.std[0]
    assert x[0, 0, 0, 0].item() == pytest.approx(black)
    # An OOD set holds its own images, not the test images again.
    assert not torch.equal(loaders[1].images.pixels[:100], data.test.pixels[:100])
    assert data.notes == ["letters rendered from fonts, not notMNIST"]
    plain = MNIST5k(image_size=32)
    plain.setup("test")
    assert isinstance(plain.test_dataloader(), BatchLoader)


def test_ood_must_be_from_elsewhere(fake_mnist):
    root = fake_mnist()
    for data in (
        MNIST(root, ood=[MNIST(root)]),
        MNIST(root, ood=[MNIST5k()]),
        MNIST5k(image_size=28, ood=[MNIST(root)]),
    ):
        with pytest.raises(ValueError, match=r"^ood must be images from elsewhere, got MNIST"):
            data.setup("test")


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_are_always_the_same_and_grow_worse(digits, kind):
    pixels = digits.test.pixels[:200].clone()
    distances = []
    for severity in SEVERITIES:
        worse = corrupted(pixels, kind, severity)
        assert (worse.dtype, worse.shape) == (torch.uint8, pixels.shape)
        assert torch.equal(worse, corrupted(pixels, kind, severity))
        distances.append((worse.float() - pixels.float()).square().mean().item())
    assert distances == sorted(distances)
    assert distances[0] > 0
    assert corrupted(torch.randint(0, 256, (3, 3, 20, 30), dtype=torch.uint8), kind, 5).shape == (3, 3, 20, 30)
    assert torch.equal(pixels, digits.test.pixels[:200])


def test_what_corruptions_do_to_a_known_image():
    bar = torch.zeros(2, 1, 33, 33, dtype=torch.uint8)
    bar[:, :, :, 16] = 255
    for image, direction in zip(corrupted(bar, "rotation", 2)[:, 0], (1, -1), strict=True):
        # 30 degrees: 8 pixels above the middle the bar is 8 tan(30) = 4.6 to the left, or to the right.
        assert image[8].float().argmax().item() == pytest.approx(16 - direction * 4.6, abs=1)
    noisy = corrupted(torch.full((50, 1, 32, 32), 128, dtype=torch.uint8), "noise", 2).double()
    assert noisy.std().item() == pytest.approx(51, abs=5 * 51 / (2 * noisy.numel()) ** 0.5 + 1)
    assert corrupted(bar, "contrast", 3)[0].double().std().item() == pytest.approx(
        0.3 * bar[0].double().std().item(), rel=0.02
    )
    assert (corrupted(torch.zeros(9, 1, 30, 30, dtype=torch.uint8), "occlusion", 4) == 128).sum((1, 2, 3)).tolist() == [
        225
    ] * 9
    with pytest.raises(ValueError, match=r"^corruption must be one of rotation, .* from 1 to 5, got 'snow' at 6\."):
        corrupted(bar, "snow", 6)


def picture(path, colour, size=(40, 50), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


def folders(root, parts, per_class=10, mode="RGB"):
    for part in parts:
        for label, name in enumerate(("cat", "dog")):
            for index in range(per_class):
                colour = 100 * label + index if mode == "L" else (100 * label + index, 0, 0)
                picture(root / part / name / f"{index}.png", colour, mode=mode)


def test_image_folder_split_by_class(tmp_path):
    folders(tmp_path, ["."])
    data = ImageFolder(str(tmp_path), image_size=16, val_split=0.25)
    data.setup()
    assert (data.class_names, data.num_classes, data.in_channels) == (("cat", "dog"), 2, 3)
    parts = (data.train, data.selection, data.calibration, data.test)
    assert [len(part) for part in parts] == [12, 2, 2, 4]
    assert data.test.labels.bincount().tolist() == [2, 2]
    reds = torch.cat([part.pixels[:, 0, 0, 0] for part in parts])
    assert sorted(reds.tolist()) == [*range(10), *range(100, 110)]  # every picture in exactly one part
    assert (data.test.pixels[:, 0, 0, 0].long() // 100 == data.test.labels).all()


def test_hidden_and_empty_folders_are_no_classes(tmp_path):
    folders(tmp_path, ["."], per_class=2)
    folders(tmp_path, [".checkpoints"], per_class=2)
    (tmp_path / "empty").mkdir()
    assert ImageFolder(str(tmp_path)).class_names == ("cat", "dog")


@pytest.mark.parametrize(("mode", "file"), [("I;16", "ramp.png"), ("I;16B", "ramp.tif")])
def test_sixteen_bit_pictures_keep_their_range(tmp_path, mode, file):
    ramp = np.repeat(np.linspace(0, 65535, 16).astype(np.uint16)[None], 16, 0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        stored = ramp.astype("<u2" if mode == "I;16" else ">u2")
        Image.frombytes(mode, (16, 16), stored.tobytes()).save(tmp_path / name / file)
        with Image.open(tmp_path / name / file) as saved:
            assert saved.mode == mode
    data = ImageFolder(str(tmp_path), image_size=16, val_split=0)
    data.setup("fit")
    assert data.in_channels == 1
    np.testing.assert_array_equal(data.train.pixels[0, 0].numpy(), ramp // 257)


def test_image_folder_with_parts_and_grey_pictures(tmp_path):
    folders(tmp_path, ["train", "val", "test"], per_class=4, mode="L")
    data = ImageFolder(str(tmp_path), image_size=16)
    data.setup()
    assert [len(part) for part in (data.train, data.selection, data.calibration, data.test)] == [8, 4, 4, 8]
    assert data.in_channels == 1


def test_image_folder_predicts_whatever_is_there(tmp_path):
    picture(tmp_path / "a.png", (9, 0, 0))
    picture(tmp_path / "more" / "b.jpg", (0, 9, 0))
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    description = {
        "image_size": 8,
        "channels": 3,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "class_names": ["x"],
        "name": "y",
    }
    data = ImageFolder(str(tmp_path))
    data.prepare_like(description, labelled=False)
    with pytest.warns(UserWarning, match=r"^1 of the pictures cannot be read and are left out, such as .*broken\.png"):
        data.setup("predict")
    assert data.predict_names() == [str(tmp_path / "a.png"), str(tmp_path / "more" / "b.jpg")]
    assert next(iter(data.predict_dataloader()))[0].shape == (2, 3, 8, 8)
    single = ImageFolder(str(tmp_path / "a.png"))
    single.prepare_like(description, labelled=False)
    single.setup("predict")
    assert single.predict_names() == [str(tmp_path / "a.png")]


def test_pictures_of_all_kinds_get_a_clear_row_or_are_read(tmp_path, monkeypatch):
    def saved(name, picture, **settings):
        picture.save(tmp_path / name, **settings)
        return (tmp_path / name).read_bytes()

    rgb = Image.new("RGB", (20, 20), (200, 100, 50))
    whole = saved("whole.png", rgb)
    saved("cmyk.jpg", rgb.convert("CMYK"))
    saved("palette.png", rgb.convert("P"))
    saved("transparent.png", rgb.convert("RGBA"))
    Image.fromarray(np.full((20, 20), 100 * 257, np.uint16)).save(tmp_path / "sixteen.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    saved("animated.webp", rgb, save_all=True, append_images=[Image.new("RGB", (20, 20), n) for n in (1, 9999999)])
    saved("pages.tif", rgb, save_all=True, append_images=[rgb])
    saved("phone.jpg", rgb, format="MPO", save_all=True, append_images=[rgb])
    saved("bomb.png", Image.new("1", (200, 200)))
    saved("program.png", rgb, format="EPS")  # which Pillow would have another program draw
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 30_000)  # Pillow's own limit is 89,478,485
    data = ImageFolder(str(tmp_path))
    description = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "class_names": [], "name": "y"}
    data.prepare_like(description, labelled=False)
    with pytest.warns(UserWarning, match=r"^6 of the pictures cannot be read and are left out"):
        data.setup("predict")
    names = [Path(name).name for name in data.predict_names()]
    read = dict(zip(names, data.predict.pixels[:, :, 4, 4].tolist(), strict=True))
    assert read.keys() == {"whole.png", "cmyk.jpg", "palette.png", "transparent.png", "sixteen.png", "phone.jpg"}
    assert read.pop("sixteen.png") == [100, 100, 100]
    for name, colour in read.items():
        assert colour == pytest.approx([200, 100, 50], abs=30), name  # a palette and JPEG change it a little
    reasons = {file.name: reason for file, reason in data.unreadable.items()}
    assert reasons.pop("animated.webp") == "it has 3 pictures or frames, not one"
    assert reasons.pop("pages.tif") == "it has 2 pictures or frames, not one"
    assert "could be decompression bomb" in reasons.pop("bomb.png")
    assert "cannot identify image file" in reasons.pop("empty.png")
    assert "truncated" in reasons.pop("cut.png")
    assert "cannot identify image file" in reasons.pop("program.png")
    assert reasons == {}


def test_image_folder_labels_follow_the_checkpoint(tmp_path):
    # A test folder that lacks a class must not shift the labels of the others.
    folders(tmp_path, ["test"])
    description = {"image_size": 8, "channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "name": "pets", "notes": []}
    data = ImageFolder(str(tmp_path))
    data.prepare_like(description | {"class_names": ["ant", "cat", "dog"]})
    data.setup("test")
    assert data.test.labels.bincount(minlength=3).tolist() == [0, 10, 10]
    with pytest.raises(
        ValueError, match="ImageFolder has the classes cat, dog, but the checkpoint was trained on pets with"
    ):
        ImageFolder(str(tmp_path)).prepare_like(description | {"class_names": ["ant", "bee"]})


def test_image_folder_never_trains_on_test_pictures(tmp_path):
    folders(tmp_path, ["test", "Train"])
    data = ImageFolder(str(tmp_path), image_size=8)
    assert data.class_names == ("cat", "dog")
    with pytest.raises(DataNotFoundError, match=r"found no train pictures: looked for .* in .*/train/CLASS, with"):
        data.setup("fit")


def test_image_folder_that_is_not_there(tmp_path):
    with pytest.raises(DataNotFoundError, match="ImageFolder found no train pictures: looked for"):
        ImageFolder(str(tmp_path), image_size=8).setup("fit")
    folders(tmp_path, ["."], per_class=2)
    with pytest.raises(ValueError, match=r"^image_size must be given for ImageFolder"):
        ImageFolder(str(tmp_path)).setup("fit")


def test_channels_and_size_are_converted():
    grey = Images(torch.full((2, 1, 28, 28), 77, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    colour = grey.converted(channels=3, size=32)
    assert colour.pixels.shape == (2, 3, 32, 32)
    assert (colour.pixels == 77).all()
    assert (colour.converted(1, 32).pixels.float() - 77).abs().max() <= 1  # luminance weights add up to 0.9999


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_split": 1.0}, "val_split must be from 0 to below 1, such as 0.2, got 1.0."),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0."),
        ({"channels": 2}, "channels must be 1 or 3, got 2."),
        ({"image_size": 0}, "image_size must be 1 or more pixels, got 0."),
        (
            {"train_subset": [5, 2]},
            "train_subset must be a number of images or [start, stop] with start < stop, got [5, 2].",
        ),
        ({"seed": -1}, "seed must be 0 or more, got -1."),
        ({"crop_padding": -1}, "crop_padding must be 0 or more pixels, got -1."),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        MNIST5k(**settings)
    assert str(error.value) == message


def pictures(folder, count=12):
    rng = np.random.default_rng(0)
    for number in range(count):
        place = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(place)
    (folder / "cat" / "broken.png").write_text("no picture")


@pytest.mark.filterwarnings("ignore:1 of the pictures:UserWarning")
def test_a_cache_gives_the_same_batches_without_reading_pictures_again(tmp_path, monkeypatch):
    pictures(tmp_path / "pictures")

    def batches(**settings):
        data = ImageFolder(str(tmp_path / "pictures"), image_size=16, val_split=0.25, crop_padding=2, **settings)
        data.setup()
        loaders = (
            data.train_dataloader(),
            data.val_dataloader(),
            data.calibration_dataloader(),
            data.test_dataloader(),
        )
        return data, [batch for loader in loaders for batch in loader]

    _, expected = batches()
    cache = str(tmp_path / "cache")
    batches(cache=cache)
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **kwargs: opened.append(args[0]) or original(*args, **kwargs))
    data, found = batches(cache=cache)
    # The channels are found by looking at headers; no picture is decoded.
    assert len(opened) <= 12
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert data.train.rows is not None
    assert [path.name for path in data.unreadable] == ["broken.png"]
    # A picture that has changed is read again, also where the file is as long as before.
    picture, sizes = tmp_path / "pictures" / "cat" / "0.png", []
    for grey in (7, 9):
        Image.new("RGB", (16, 16), (grey, grey, grey)).save(picture)
        sizes.append(picture.stat().st_size)
        data, _ = batches(cache=cache)
        everything = torch.cat([part.pixels for part in (data.train, data.selection, data.calibration, data.test)])
        assert (everything == grey).flatten(1).all(1).sum() == 1
    assert sizes[0] == sizes[1]


def test_pixels_in_a_file_are_read_when_they_are_asked_for():
    stored = torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1)
    images = Images(stored, torch.arange(10), torch.arange(10))
    part = images[torch.tensor([7, 3, 5])][1:]
    assert part.stored.data_ptr() == stored.data_ptr()
    assert part.pixels.flatten().tolist() == part.labels.tolist() == [3, 5]
    assert Images(stored, torch.arange(10)).mean_and_std() == images.mean_and_std()
    with pytest.raises(ValueError, match="labels must be one for each image"):
        Images(stored, torch.arange(10), torch.arange(4))


def test_batches_go_to_the_device_they_are_wanted_on(digits):
    # The meta device stands for a GPU: it takes shapes and kinds of numbers, and refuses numbers from elsewhere.
    loader = BatchLoader(digits.train, 64, digits.mean, digits.std, EpochSampler(3200, shuffle=True), device="meta")
    pixels, labels = next(iter(loader))
    assert (pixels.device.type, labels.device.type) == ("meta", "meta")
    assert (pixels.dtype, labels.dtype, pixels.shape) == (torch.float32, torch.int64, (64, 1, 32, 32))


def test_resident_images_give_the_same_batches():
    settings = {"image_size": 32, "train_subset": 300, "crop_padding": 2, "flip": True}
    batches = []
    for resident in (False, True):
        data = MNIST5k(**settings, resident=resident)
        data.setup("fit")
        batches.append(list(data.train_dataloader()))
    torch.testing.assert_close(*batches, rtol=0, atol=0)
