"""A labelling loop's folders: copies that are labels, several tables and folders, and the pool to choose from."""

import builtins
import shutil
import warnings

import pytest
from PIL import Image

from bnn_lightning.data import DataNotFoundError, ImageFolder
from tests.data.conftest import CLASSES, NAMES, labelled, sort_into


def test_copies_sorted_into_folders_are_labels(root):
    # By their bytes: links, names with a number, and a name that two pictures have.
    for place, name in {"cat/a_1.png": "a.png", "cat/c.png": "in/c.png", "dog/b.png": "b.png"}.items():
        (root.parent / "sorted" / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, root.parent / "sorted" / place)
    (root.parent / "sorted" / "dog" / "d.png").symlink_to(root / "in" / "d 2.png")
    Image.new("L", (8, 8), 255).save(root.parent / "sorted" / "dog" / "new.png")
    classes, said = labelled(root, "", sorted_into="sorted")
    assert classes == CLASSES
    assert "pictures that have no class in sorted and are left out: 1, such as other/a.png." in said
    assert f"copies of none below {root}, byte for byte, and are left out: 1, such as sorted/dog/new.png." in said


def test_a_copy_is_told_by_its_bytes_alone(root):
    # A foreign picture of a name that is there, and a name that is no path where it is read as text.
    Image.new("L", (8, 8), 99).save(root / "in\\c.png")
    foreign = (root / "b.png").read_bytes() + b" "
    sort_into(
        root.parent / "sorted", {"cat/a.png": root / "a.png", "dog/1.png": root / "in\\c.png", "dog/b.png": foreign}
    )
    (root.parent / "sorted" / "dog" / "gone.png").symlink_to(root / "gone.png")
    classes, said = labelled(root, "", sorted_into="sorted")
    assert classes == {"a.png": "cat", "in\\c.png": "dog"}
    assert "byte for byte, and are left out: 2, such as sorted/dog/gone.png." in said


def test_copies_of_pictures_of_one_size_are_told_in_two_readings_of_each(root, monkeypatch):
    contents = {f"{number:03}.bmp": f"{number:03}".encode() for number in range(60)}  # BMP has a size for a shape
    sort_into(root, contents)
    sort_into(root.parent / "sorted", {f"{'ab'[n % 2]}/{name}": root / name for n, name in enumerate(contents)})
    opened = []
    real = builtins.open
    monkeypatch.setattr(builtins, "open", lambda path, *args: opened.append(path) or real(path, *args))
    classes, _ = labelled(root, "", sorted_into="sorted")
    assert classes == {name: "ab"[number % 2] for number, name in enumerate(contents)}
    assert 120 <= sum(str(path).endswith(".bmp") for path in opened) <= 2 * 120


def test_tables_and_folders_add_up(root):
    sort_into(root.parent / "round 1", {"dog/x.png": root / "b.png", "cat/y.png": root / "in" / "c.png"})
    sort_into(root.parent / "round 2", {"cafe\u0301/z.png": root / "in" / "d 2.png", "cat/new.png": b"new"})
    both = ["labels.csv", "round 1", "round 2"]
    classes, said = labelled(root, "file,class\na.png,cafe\u0301\nb.png,dog\ngone.png,cat\n", sorted_into=both)
    assert classes == {"a.png": "caf\u00e9", "b.png": "dog", "in/c.png": "cat", "in/d 2.png": "caf\u00e9"}
    where = f"{root / 'labels.csv'} and round 1 and round 2"
    assert f"pictures that have no class in {where} and are left out: 1, such as other/a.png." in said
    assert "that name no picture that is there: 1, such as gone.png." in said
    assert "byte for byte, and are left out: 1, such as round 2/cat/new.png." in said


@pytest.mark.parametrize(
    ("text", "labels", "sentence"),
    [
        (
            "file,class\na.png,dog\n",
            ["labels.csv", "sorted"],
            r"labels must have one class for each file, got dog in .*labels\.csv and cat in sorted for a\.png\.",
        ),
        (
            "file,angle\na.png,1\n",
            ["sorted", "labels.csv"],
            "labels must be classes where there are several tables or folders, got numbers in .*labels.csv; if they "
            "are classes, call their column class.",
        ),
        ("", [], "labels must be a table or a folder, or several, got an empty list; null takes none."),
        ("", ["sorted", "nowhere"], "labels must be a table, got .*nowhere, which is not there."),
    ],
)
def test_labels_that_do_not_add_up(root, text, labels, sentence):
    sort_into(root.parent / "sorted", {"cat/a.png": root / "a.png", "dog/b.png": root / "b.png"})
    (root / "labels.csv").write_text(text)
    with pytest.raises((ValueError, DataNotFoundError), match=f"^{sentence}$"):
        _ = ImageFolder(root=str(root), labels=labels).class_names


@pytest.mark.parametrize(
    ("labels", "place", "sentence"),
    [
        ("root/sorted", "cat/a.png", r"labels must lie outside of root, whose pictures would be there twice, got root"),
        ("sorted", "a.png", r"labels must be a folder with a folder of pictures for each class, got a\.png in sorted"),
        ("sorted", "cat/a.png", r"labels must have two classes or more to train on, got cat alone in sorted"),
        ("sorted", "note.txt", r"labels must be a folder with a folder of pictures for each class, got none in sorted"),
    ],
)
@pytest.mark.filterwarnings("ignore:pictures that have no class in sorted")  # said before the sentence about one class
def test_a_folder_that_sorts_nothing_is_refused(root, labels, place, sentence):
    path = root.parent / labels / place
    path.parent.mkdir(parents=True)
    shutil.copyfile(root / "a.png", path)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        ImageFolder(root="root", labels=labels).setup("fit")


@pytest.mark.filterwarnings("ignore")
def test_the_unlabelled_are_those_without_a_class(root):
    (root / "labels.csv").write_text("file,class\na.png,cat\nb.png,dog\nin/c.png,\n")
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8)
    data.leaves_out_labelled = True
    data.setup("predict")
    assert [name.rpartition("root/")[2] for name in data.predict_names()] == ["in/c.png", "in/d 2.png", "other/a.png"]
    assert [file.name for file in data.predict_files()] == ["c.png", "d 2.png", "a.png"]
    (root / "labels.csv").write_text("file,class\n" + "".join(f"{name},cat\n" for name in NAMES))
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8)
    data.leaves_out_labelled = True
    with pytest.raises(DataNotFoundError, match=r"every picture below .* has its label in labels\.csv"):
        data.setup("predict")


@pytest.mark.parametrize("labels", ["labels.csv", None])
def test_no_picture_to_test_on_is_chosen(root, labels):
    shutil.rmtree(root)
    names = [f"{part}/{kind}/{name}.png" for part in ("train", "valid", "Test") for kind in "xy" for name in "ab"]
    for name in (*names, "more/c.png", "test.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)
    first = [name for name in names if name.endswith("a.png")]
    (root / "labels.csv").write_text("\n".join(["file,class", *(f"{name},{name[-7]}" for name in first)]))

    def pool():
        data = ImageFolder(root="root", labels=labels, image_size=8, channels=1)
        data._trained_classes, data.mean, data.std = ("x", "y"), [0.0], [1.0]
        data.leaves_out_labelled = True
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            data.setup("predict")
        return data.predict_names(), " ".join(str(each.message) for each in caught)

    files, said = pool()
    kept = [f"root/{name}" for name in names if name.startswith("train") and (labels is None or name not in first)]
    assert files == ["root/more/c.png", "root/test.png", *kept]
    count, such_as = (4, "root/Test/x/b.png") if labels else (8, "root/Test/x/a.png")
    assert (
        f"unlabelled pictures in folders of validation and test, which are not chosen from: {count}, such as "
        f"{such_as}; a test set is drawn at random."
    ) in said
    if labels:
        every = [name for name in (*names, "more/c.png", "test.png") if not name.startswith("Test/x/b")]
        (root / "labels.csv").write_text("\n".join(["file,class", *(f"{name},{name[-7]}" for name in every)]))
        with pytest.raises(
            DataNotFoundError,
            match=r"^every picture below root has its label in labels\.csv, or is one to validate or test",
        ):
            pool()
    # Without a folder for training, one that is called test is like any other.
    shutil.rmtree(root / "train")
    (root / "labels.csv").write_text("file,class\nmore/c.png,x\n")
    assert "root/Test/x/b.png" in pool()[0]


@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_read_is_called_by_its_name_where_some_have_labels(root):
    (root / "labels.csv").write_text("file,class\na.png,cat\nb.png,dog\n")
    (root / "z_bad.png").write_bytes(b"no picture")
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8, channels=1)
    data.leaves_out_labelled = data.streams_predict = True
    data.mean, data.std = [0.0], [1.0]
    data.setup("predict")
    assert sum(len(x) for x, _ in data.predict_dataloader()) == 3
    assert [file.name for file in data.unreadable] == ["z_bad.png"]
