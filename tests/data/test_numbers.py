"""Images whose labels are numbers: rotated digits, and pictures with a table."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bnn_lightning.data import DataNotFoundError, ImageFolder, Images, MNIST5k, RotatedDigits


def test_digits_are_rotated_by_their_angle_and_always_the_same():
    data, digits = RotatedDigits(train_subset=100), MNIST5k()
    data.setup("fit")
    for each in (data, digits):
        each.setup("test")
    angles = data.test.labels
    assert angles.shape == (1000, 1)
    assert (angles >= -45).all()
    assert (angles <= 45).all()
    assert angles.mean().abs() < 3  # the standard error is 0.8
    assert data.test.labels.equal(RotatedDigits().load_test().labels)
    # Pillow turns against the clock by a positive angle too.
    for index in (0, 5):
        turned = Image.fromarray(digits.test.pixels[index, 0].numpy()).rotate(
            angles[index].item(), Image.Resampling.BILINEAR
        )
        gap = np.abs(np.asarray(turned).astype(float) - data.test.pixels[index, 0].numpy()).mean()
        assert gap < 6
    assert (data.target_names, data.num_classes, data.num_targets) == (("angle",), 0, 1)
    assert data.describe()["target_mean"] == data.target_mean
    batch = next(iter(data.train_dataloader()))
    assert batch[1].dtype == torch.float32
    assert batch[1].shape[1] == 1


@pytest.mark.parametrize("setting", ["class_weights", "sampling"])
def test_what_is_for_classes_is_refused(setting):
    with pytest.raises(ValueError, match=f"^{setting} must be null for RotatedDigits, whose labels are numbers"):
        RotatedDigits(**{setting: "balanced"}).setup("fit")


def test_labels_are_classes_or_rows_of_numbers():
    pixels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    Images(pixels, torch.zeros(3, 2))
    for labels in (torch.zeros(3), torch.zeros(2, 1), torch.zeros(3, 1, dtype=torch.int64)):
        with pytest.raises(ValueError, match=r"^labels must be one for each image \(3\)"):
            Images(pixels, labels)


@pytest.fixture
def pictures(tmp_path):
    """Ten grey pictures whose number is their brightness, in ``root``; and their table."""
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    rows = ["file,brightness,other"]
    for number in range(10):
        name = f"inner/{number}.png" if number % 2 else f"{number}.png"
        Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(root / name)
        rows.append(f"{name},{20 * number},{-number}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def folder(root, labels="labels.csv", **settings):
    return ImageFolder(root=str(root), labels=labels, image_size=8, **settings)


def test_pictures_have_the_numbers_of_their_rows(pictures):
    data = folder(pictures, val_split=0)
    data.setup("fit")
    data.setup("test")
    assert data.target_names == ("brightness", "other")
    assert (len(data.train), len(data.test)) == (8, 2)
    for part in (data.train, data.test):
        assert part.pixels[:, 0, 0, 0].tolist() == part.labels[:, 0].tolist()
        assert (part.labels[:, 1] * -20).tolist() == part.labels[:, 0].tolist()
    assert str(data.found).endswith("root: 10 pictures\n  passed over: 1 file (.csv 1)")
    unlabelled = ImageFolder(root=str(pictures))
    unlabelled.prepare_like(data.describe(), labelled=False)
    unlabelled.setup("predict")
    assert len(unlabelled.predict) == 10
    assert unlabelled.predict.labels.isnan().all()


@pytest.mark.filterwarnings("ignore")
def test_files_are_matched_as_those_of_classes_are(pictures):
    lines = (pictures / "labels.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    expected = folder(pictures, val_split=0)
    expected.setup("fit")
    for text in (
        ["brightness,other,file", *(f"{one},{two},./{file}" for file, one, two in rows)],
        ["file,brightness,other,colour", *(f"{pictures.resolve()}/{line},red" for line in lines)],
        ["id,brightness,other", *(line.replace(".png", "") for line in lines)],
    ):
        (pictures / "labels.csv").write_text("\n".join(text))
        data = folder(pictures, val_split=0)
        data.setup("fit")
        assert data.target_names == ("brightness", "other")
        assert data.train.labels.equal(expected.train.labels)


@pytest.mark.parametrize("name", ["age", "class"])
def test_decimal_commas_are_no_classes(pictures, name):
    files = [line.split(",")[0] for line in (pictures / "labels.csv").read_text().splitlines()[1:]]
    rows = [f"{file};{number},5" for number, file in enumerate(files)]
    (pictures / "labels.csv").write_text("\n".join([f"file;{name}", *rows]))
    sentence = f"^labels must have decimal points, got {name} with decimal commas, such as 0,5 in row 2 of "
    with pytest.raises(ValueError, match=sentence):
        folder(pictures).setup("fit")


def test_folders_called_train_and_test_are_the_splits(tmp_path):
    rows = ["file,number"]
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in range(4):
            Image.fromarray(np.full((8, 8), 20 * number, np.uint8)).save(tmp_path / split / f"{number}.png")
            rows.append(f"{split}/{number}.png,{number}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    data = folder(tmp_path, val_split=0)
    data.setup("fit")
    data.setup("test")
    assert (len(data.train), len(data.test)) == (4, 4)


@pytest.mark.parametrize(
    ("text", "error", "sentence"),
    [
        ("0.png,1\n2.png,2", ValueError, "labels must be a table with the header file,class or file,NUMBER"),
        ("file,n\n0.png,1\n0.png,2", ValueError, "labels must have a row for each file, got 0.png twice"),
        (
            "file,n\n0.png,1\nold/0.png,2",
            ValueError,
            "labels must have a row for each file, got two with other numbers",
        ),
        (",file\n0,0.png\n1,2.png", ValueError, "labels must be a table with the header file,NUMBER, got the column"),
        ("file,n\n0.png,\n2.png,2", ValueError, "labels must have a number for each file, got no n in row 2"),
        ("file,n\n0.png,high\n2.png,2", ValueError, "labels must be a column of numbers, got n, where row 2 of"),
        ("file,n\nx.png,1\ny.png,2", ValueError, "labels must name pictures below .*, got x.png, y.png in"),
        (None, DataNotFoundError, "labels must be a table, got .* which is not there"),
    ],
)
def test_bad_tables_are_one_sentence(pictures, text, error, sentence):
    (pictures / "labels.csv").unlink()
    if text is not None:
        (pictures / "labels.csv").write_text(text)
    with pytest.raises(error, match=f"^{sentence}"):
        folder(pictures).setup("fit")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\n".join(["file,n", *(f"{n}.png,1" for n in range(300)), "299.png,1"]), "for each file, got 299.png twice"),
        (",".join(["file", *(f"n{n}" for n in range(300)), "n299"]) + "\n" + ",".join("1" * 302), "got n299 twice"),
    ],
)
def test_what_is_there_twice_is_found_without_counting_each(pictures, text, sentence):
    (pictures / "labels.csv").write_text(text)
    counts = []

    def note(frame, event, function):
        if event == "c_call" and function.__name__ == "count":
            counts.append(function)

    sys.setprofile(note)
    try:
        with pytest.raises(ValueError, match=sentence):
            folder(pictures).setup("fit")
    finally:
        sys.setprofile(None)
    assert len(counts) < 100


def test_pictures_without_a_row_and_rows_without_a_picture_are_said(pictures):
    path = pictures / "labels.csv"
    path.write_text(path.read_text().replace("inner/3.png", "gone.png"))
    with (
        pytest.warns(UserWarning, match="rows of .* that name no picture that is there: 1, such as gone.png"),
        pytest.warns(UserWarning, match="pictures that have no row in .* and are left out: 1, such as inner/3.png"),
    ):
        folder(pictures).setup("fit")
