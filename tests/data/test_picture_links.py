"""Labels of pictures that links lead to: each file has one label and is in one part."""

import warnings

import numpy as np
import pytest
from PIL import Image

from bnn_lightning.data import ImageFolder

KINDS = {"class": ("cat", "dog"), "angle": (1.5, 2.5)}


def linked(root, kind, links):
    """Four pictures and links to them, with a table of all; the data, not yet set up."""
    root.mkdir(exist_ok=True)
    rows = [f"file,{kind}"]
    for number in range(4):
        name = f"train/{number}.png" if any("/" in link for link in links) else f"{number}.png"
        (root / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 50 * number, np.uint8)).save(root / name)
        rows.append(f"{name},{KINDS[kind][number % 2]}")
        for link, (of, value) in links.items():
            if of == number:
                (root / link).parent.mkdir(exist_ok=True)
                (root / link).symlink_to(root / name)
                rows.append(f"{link},{KINDS[kind][value]}")
    (root / "labels.csv").write_text("\n".join(rows))
    return ImageFolder(root=str(root), labels="labels.csv", image_size=8, channels=1, val_split=0)


def levels(part):
    return sorted(part.pixels[:, 0, 0, 0].tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_two_links_lead_to_is_in_one_part(tmp_path, kind):
    data = linked(tmp_path / "root", kind, {f"link{n}.png": (n, n % 2) for n in range(4)})
    with pytest.warns(UserWarning, match=r"^labelled pictures that are links to another one, and are taken once: 4, "):
        data.setup()
    assert sorted(levels(data.train) + levels(data.test)) == [0, 50, 100, 150]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
def test_a_test_picture_that_a_link_puts_into_training_is_tested_on(tmp_path, kind):
    data = linked(tmp_path / "root", kind, {"test/a.png": (0, 0), "val/b.png": (1, 1), "val/a.png": (0, 0)})
    data.setup()
    held_out = levels(data.selection) + levels(data.calibration)
    assert (levels(data.test), held_out, levels(data.train)) == ([0], [50], [100, 150])
    every = linked(tmp_path / "every", kind, {f"test/{n}.png": (n, n % 2) for n in range(4)})
    with pytest.raises(ValueError, match=r"^labels must name training pictures that are not those to test or validate"):
        every.setup("fit")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("class", r"labels must have one class for each file, got cat and dog in .* for link\.png, which is 0\.png\."),
        ("angle", r"labels must have a row for each file, got two with other numbers for link\.png"),
    ],
)
def test_two_labels_of_one_file_are_refused(tmp_path, kind, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        linked(tmp_path / "root", kind, {"link.png": (0, 1)}).setup("fit")


def test_what_a_link_without_a_row_leads_to_is_labelled(tmp_path):
    data = linked(tmp_path / "root", "class", {})
    (tmp_path / "root" / "link.png").symlink_to(tmp_path / "root" / "0.png")
    Image.new("L", (8, 8)).save(tmp_path / "root" / "new.png")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")
    assert any("are left out: 1, such as new.png" in str(each.message) for each in caught)
    data.leaves_out_labelled = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup("predict")
    assert [file.name for file in data.predict_files()] == ["new.png"]
