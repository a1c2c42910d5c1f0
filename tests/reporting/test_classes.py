"""Results by class: their rows, files and table, and the figure of the confusion matrix."""

import json
import warnings
from io import StringIO
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from bnn_lightning.reporting import figures, tables
from bnn_lightning.reporting.cells import class_cells
from bnn_lightning.reporting.classes import class_results, write_classes
from tests.helpers import table

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
NAMES = ["_cat", "$dog$", "[red]owl", "ночь"]
CONFUSION = torch.tensor([[8, 2, 0, 0], [1, 3, 0, 0], [0, 5, 5, 0], [0, 0, 0, 0]])


def test_rows_say_what_the_matrix_says():
    results = class_results(CONFUSION, NAMES)
    assert results["confusion_matrix"] == CONFUSION.tolist()
    cat, dog, owl, night = results["per_class"]
    assert cat | {"accuracy": 0.8, "precision": 8 / 9, "mistaken_for": "$dog$", "images": 10} == cat
    assert cat["f1"] == pytest.approx(2 / (1 / 0.8 + 9 / 8))
    assert cat["accuracy_low"] < 0.8 < cat["accuracy_high"]
    assert (dog["mistaken_for"], owl["mistaken_for"]) == ("_cat", "$dog$")
    nothing = dict.fromkeys(("accuracy", "accuracy_low", "accuracy_high", "precision", "f1", "mistaken_for"))
    assert night == {"name": "ночь", "images": 0} | nothing
    json.dumps(results, allow_nan=False)


def test_files_have_a_row_for_each_class():
    names = [*NAMES[:3], "_cat"]  # two classes of one name
    files = write_classes(Path(), "test", class_results(CONFUSION, names))
    assert [file.name for file in files] == ["test_classes.csv", "test_confusion.csv"]
    rows = table(files[0])
    assert [row["name"] for row in rows] == names
    assert float(rows[0]["accuracy"]) == 0.8
    assert rows[3]["accuracy"] == ""
    rows = table(files[1])
    columns = ["_cat (0)", "$dog$", "[red]owl", "_cat (3)"]
    assert [row["label / predicted"] for row in rows] == columns
    assert [[int(row[name]) for name in columns] for row in rows] == CONFUSION.tolist()


def shown(confusion, names):
    out = StringIO()
    tables._show(Console(file=out, width=120), class_cells(class_results(confusion, names), tables._SHOWN_CLASSES))
    return out.getvalue()


def test_the_table_takes_names_literally_and_leaves_out_classes_without_images():
    lines = shown(CONFUSION, NAMES).splitlines()
    assert lines[0] == "Classes:"
    assert [line.split()[0] for line in lines[2:]] == ["_cat", "$dog$", "[red]owl"]


def test_of_many_classes_the_worst_are_shown():
    confusion = torch.eye(100, dtype=torch.int64) * torch.arange(1, 101)
    confusion[:, 0] += 101 - torch.arange(1, 101)
    confusion[0, 0] = 1
    text = shown(confusion, [f"name{label}" for label in range(100)])
    assert text.startswith("The 12 of 100 classes of lowest accuracy:")
    assert [line.split()[0] for line in text.splitlines()[2:]] == [f"name{label}" for label in range(1, 13)]


@pytest.mark.parametrize("count", [2, 10, 100, 300])
def test_a_confusion_matrix_can_be_drawn_for_any_number_of_classes(count):
    labels = torch.randint(0, count, (2000,))
    predicted = torch.where(torch.rand(2000) < 0.7, labels, torch.randint(0, count, (2000,)))
    confusion = (labels * count + predicted).bincount(minlength=count**2).view(count, count)
    confusion[1] = 0  # a class without images
    figures.confusion_matrix(Path("figure.png"), confusion, [f"a long class name {label}" for label in range(count)])
    with Image.open("figure.png") as picture:
        assert max(picture.size) <= 2200


def test_the_colours_of_a_row_are_shares_of_its_images():
    # Of 1,000 images and of 10 a half is the same colour; a class without images is grey.
    confusion = torch.tensor([[500, 500, 0], [0, 5, 5], [0, 0, 0]])
    figures.confusion_matrix(Path("figure.png"), confusion, ["a", "b", "c"])
    with Image.open("figure.png") as picture:
        colours = picture.convert("RGB").getcolors(picture.width * picture.height)
    areas = {colour: pixels for pixels, colour in colours if pixels > 0.02 * picture.width * picture.height}
    halves = [colour for colour in areas if colour[2] > colour[0] + 60]
    assert len(halves) == 1
    assert (208, 208, 208) in areas


def test_names_are_drawn_as_they_are():
    names = ["_cat", "$dog$ and $a^$", "猫", "ночь", "x" * 60]
    with warnings.catch_warnings(), figures.names_in_fonts(names) as drawn:
        warnings.simplefilter("error", UserWarning)  # of letters that no font has, of labels that a legend leaves out
        assert drawn[:2] == names[:2]
        assert drawn[2] in ("猫", "class 2")  # where no font of the machine has it
        assert drawn[3:] == names[3:]
        figures.confusion_matrix(Path("figure.png"), torch.ones(5, 5, dtype=torch.int64), drawn)
        logits = torch.randn(4, 3, 5)
        pixels = torch.randint(0, 256, (3, 1, 8, 8), dtype=torch.uint8)
        figures.rotated_image(Path("turned.png"), [0.0, 10.0, 20.0], pixels, logits, drawn)
        figures.class_uncertainty(Path("classes.png"), [(drawn[0], pixels[0], logits[:, 0])], drawn)
    assert figures.short("$dog$ and more") == r"\$dog\$ and m…"
    assert figures.short("ab", 12) == "ab"
