"""What every set of images does: it splits, normalises, augments, and says what is tested."""

import pytest
import torch

from bnn_lightning.data import MNIST, BatchLoader, FashionMNIST, Images, MNIST5k, RenderedLetters
from bnn_lightning.data.corruptions import KINDS
from bnn_lightning.data.idx import read_idx
from bnn_lightning.data.splits import stratified_split


def test_mnist5k_has_3200_training_images_and_1000_test_images(digits):
    assert (digits.num_train, len(digits.selection), len(digits.calibration), len(digits.test)) == (
        3200,
        400,
        400,
        1000,
    )
    assert digits.test.labels.bincount().tolist() == [100] * 10
    assert digits.train.labels.bincount().tolist() == [320] * 10


def test_parts_are_disjoint_and_stratified(digits):
    # No image stands in two parts, and validation is not a prefix of training.
    parts = [digits.train, digits.selection, digits.calibration, digits.test]
    rows = [{row.tobytes() for row in part.pixels.flatten(1).numpy()} for part in parts]
    assert sum(map(len, rows)) == len(set().union(*rows))
    assert not torch.equal(digits.selection.pixels, digits.train.pixels[: len(digits.selection)])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.2, 0.5])
def test_a_split_takes_its_share_of_every_class(share):
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
    # Catches a missing division by 255 as well as a second one.
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


def test_augmentation_crops_and_flips_training_batches_only(digits):
    data = MNIST5k(crop_padding=2, flip=True)
    data.setup()
    plain, augmented = data.train.pixels, data.train_dataloader()
    index = augmented.sampler.order()[: data.batch_size]
    x, labels = next(iter(augmented))
    assert torch.equal(labels, data.train.labels[index])
    shown = ((x + augmented.scaling.shift) / augmented.scaling.scale).round().to(torch.uint8)
    padded = torch.nn.functional.pad(plain[index], (2, 2, 2, 2))
    crops = []
    for image, source in zip(shown[:50], padded[:50], strict=True):
        places = [
            (top, left, flip)
            for top in range(5)
            for left in range(5)
            for flip in (False, True)
            if torch.equal(image.flip(2) if flip else image, source[:, top : top + 28, left : left + 28])
        ]
        assert places  # every augmented image is a crop of its own source
        crops.append(places[0])
    assert len(set(crops)) > 10
    assert torch.equal(next(iter(data.test_dataloader()))[0], next(iter(data.test_dataloader()))[0])


@pytest.mark.filterwarnings("ignore:.*too small")
def test_train_subset_comes_first_in_file_order(fake_mnist):
    data = FashionMNIST(fake_mnist(name="FashionMNIST"), train_subset=[50, 150], val_split=0.1)
    data.setup("fit")
    whole = read_idx(data.root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte", 3)[50:150]
    used = torch.cat([part.pixels[:, 0] for part in (data.train, data.selection, data.calibration)])
    assert data.num_train == 90
    assert {row.tobytes() for row in used.numpy()} == {row.tobytes() for row in whole.numpy()}
    with pytest.raises(ValueError, match=r"^train_subset must lie within the 200 training images, got 201\.$"):
        FashionMNIST(str(data.root), train_subset=201).setup("fit")


def test_without_a_hold_out_all_images_train(fake_mnist):
    data = MNIST(fake_mnist(), val_split=0)
    data.setup("fit")
    assert data.num_train == 200
    assert data.val_dataloader() == []


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
        ({"affine": 1.0}, "affine must be 0 or more and below 1, got 1.0."),
        ({"affine": float("nan")}, "affine must be 0 or more and below 1, got nan."),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match="must be") as error:
        MNIST5k(**settings)
    assert str(error.value) == message


class OneWithout(MNIST5k):
    """Whose last training image has a label that is none of the classes."""

    label = -100

    def load_train(self):
        images = super().load_train()
        labels = images.labels.clone()
        labels[-1] = self.label
        return Images(images.stored, labels)


@pytest.mark.parametrize("label", [-100, -1, 10])
def test_a_label_of_no_class_is_refused_when_it_is_read(label, monkeypatch):
    # A step on a device cannot look at it, and torch passes over -100.
    monkeypatch.setattr(OneWithout, "label", label)
    sentence = f"^labels must be from 0 to 9, .* of OneWithout, got {label} for training image 3999; leave out "
    with pytest.raises(ValueError, match=sentence):
        OneWithout(class_weights="balanced").setup("fit")
