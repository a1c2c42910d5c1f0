"""Classes of pictures from tables: the exports of several tools, files matched by name, and contradictions."""

import shutil
import warnings

import pytest
from PIL import Image

from bnn_lightning.data import DataNotFoundError, ImageFolder
from bnn_lightning.preprocessing.pictures import flat_name
from tests.data.conftest import CLASSES, NAMES, labelled, sort_into

PLAIN = "file,class\na.png,cat\nb.png,dog\nin/c.png,cat\nin/d 2.png,dog\n"
LABEL_STUDIO = """image,id,choice,annotator,annotation_id,created_at,updated_at,lead_time
root/a.png,1,cat,1,1,2024-01-01T10:00:00Z,2024-01-01T10:00:00Z,3.5
/data/upload/1/0a1b2c3d-b.png,2,dog,1,2,2024-01-01T10:00:00Z,2024-01-01T10:00:00Z,1.25
https://host/media/in/c.png?token=1,3,cat,1,3,2024-01-01T10:00:00Z,2024-01-01T10:00:00Z,2
/data/local-files/?d=pool/d%202.png,4,dog,1,4,2024-01-01T10:00:00Z,2024-01-01T10:00:00Z,2
"""
ROBOFLOW = "filename, cat, dog\na.png,1,0\nb.png,0,1\nc.png,1,0\nin/d 2.png,0,1\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN.replace(",", ";"),
        "path,label\n./a.png,cat\nroot/b.png,dog\nin\\c.png,cat\nin/d 2.png,dog\n",
        "image_path,score,Category\na.png,1,cat\nb.png,2,dog\nc.png,3,cat\nd 2.png,4,dog\n",
        "kind,filename\ncat,a.png\ndog,b.png\ncat,in/c.png\ndog,in/d 2.png\n",
        "picture,animal\na.png,cat\nb.png,dog\nin/c.png,cat\nin/d 2.png,dog\n",
        PLAIN + "a.png,cat\n",
        LABEL_STUDIO,
        ROBOFLOW,
        ROBOFLOW.replace("1", "1.0").replace("0", "0.0").replace("1.0.0", "1.0"),
        ",file,class\n0,a.png,cat\n1,b.png,dog\n2,in/c.png,cat\n3,in/d 2.png,dog\n",  # as pandas writes it
        "id,breed\nroot/a,cat\nb,dog\nc,cat\nd 2,dog\n",
    ],
)
def test_tables_of_several_tools_are_read(root, text):
    assert labelled(root, text)[0] == CLASSES


@pytest.mark.parametrize(
    ("names", "text", "classes"),
    [
        (
            ["my cat (1).png", "caf\u00e9.png", "b.png"],
            "image,choice\n/data/upload/1/0a1b2c3e-my_cat_1.png,cat\n/data/upload/1/0a1b2c3f-cafe.png,dog\n",
            {"my cat (1).png": "cat", "caf\u00e9.png": "dog"},  # a disk's separate accent is dropped
        ),
        (
            ["001.png", "sub/001.jpg", "IMG 2 (1).JPG"],
            "filename,cat,dog\n001_png.rf.0a1b.jpg,1,0\nIMG-2-1-_JPG.rf.2c3d.jpg,0,1\n001_png.rf.9f9f.jpg,1,0\n",
            {"001.png": "cat", "IMG 2 (1).JPG": "dog"},
        ),
        (
            ["one/x.png", "two/x.png", "x.png"],  # as they are called in the folders of bnn acquire --to
            f"file,class\n{flat_name(('one', 'x.png'))},cat\n/data/upload/1/01234567-{flat_name(('two', 'x.png'))},dog",
            {"one/x.png": "cat", "two/x.png": "dog"},
        ),
    ],
)
def test_names_that_tools_have_changed(root, names, text, classes):
    shutil.rmtree(root)
    sort_into(root, dict.fromkeys(names, b""))
    assert labelled(root, text)[0] == classes


@pytest.mark.parametrize(
    ("names", "file"),
    [
        (["my cat.png", "my_cat.png"], "/data/upload/1/0a1b2c3e-my_cat.png"),
        (["a b.png", "a-b.png"], "a-b_png.rf.0a1b.jpg"),
    ],
)
def test_changed_names_that_two_pictures_may_have_are_refused(root, names, file):
    sort_into(root, dict.fromkeys(names, b""))
    with pytest.raises(
        ValueError, match=f"^labels must tell pictures apart, got {file} in .* which may be {names[0]} and"
    ):
        labelled(root, f"file,class\n{file},cat\n")


@pytest.mark.parametrize(
    ("labels", "text", "classes"),
    [
        (
            "_classes.csv",
            "filename, class, file\na.png,1,0\nb.png,0,1\nin/c.png,0,0\n",
            {"a.png": "class", "b.png": "file"},
        ),
        ("labels.csv", "filename,label,other\na.png,1,0\nb.png,0,1\n", {"a.png": "label", "b.png": "other"}),
        ("labels.csv", "filename,label,fold\na.png,1,0\nb.png,0,0\n", {"a.png": "1", "b.png": "0"}),
    ],
)
def test_a_column_for_each_class_may_be_called_as_columns_of_classes_are(root, labels, text, classes):
    assert labelled(root, text, labels)[0] == classes


def test_a_single_class_of_roboflow_is_no_number(root):
    with pytest.raises(
        ValueError, match=r"^labels must have two classes or more to train on, got cat alone in .*\.csv\.$"
    ):
        labelled(root, "filename,cat\na.png,1\nb.png,0\n", "_classes.csv")


def test_accents_are_matched_however_they_are_written(root):
    two_characters, one_character = "caf\u0065\u0301", "caf\u00e9"
    Image.new("L", (8, 8)).save(root / f"{two_characters}.png")
    assert labelled(root, PLAIN + f"{one_character}.png,cat\n")[0] == CLASSES | {f"{one_character}.png": "cat"}


@pytest.mark.parametrize("file", ["/data/p/50%25 #1?.png", "/data/p/50%2525%20%231%3F.png"])
def test_a_path_below_data_may_be_a_file_or_an_upload(root, file):
    (root / "p").mkdir()
    Image.new("L", (8, 8)).save(root / "p" / "50%25 #1?.png")
    assert labelled(root, PLAIN + f"{file},cat\n")[0] == CLASSES | {"p/50%25 #1?.png": "cat"}


def test_classes_may_be_called_as_missing_values_are(root):
    found, _ = labelled(root, "file,class\na.png,cat\nb.png,none\nin/c.png,NULL\nin/d 2.png,nan\n")
    assert found == {"a.png": "cat", "b.png": "none", "in/c.png": "NULL"}


def test_what_has_no_class_yet_is_left_out_and_said(root):
    text = "file,class\na.png,cat\nb.png,\nin/c.png,dog\ngone.png,dog\nfolder/d 2.png,dog\n"
    classes, said = labelled(root, text)
    assert classes == {"a.png": "cat", "in/c.png": "dog", "in/d 2.png": "dog"}
    assert "are left out: 2, such as b.png." in said
    assert "that name no picture that is there: 1, such as gone.png." in said
    assert "that are matched by the file's name alone: 1, such as folder/d 2.png for in/d 2.png." in said


@pytest.mark.filterwarnings("ignore")
def test_classes_that_are_numbers_are_in_their_natural_order(root):
    (root / "labels.csv").write_text("file,label\na.png,10\nb.png,9\nin/c.png,10\nin/d 2.png,9\n")
    data = ImageFolder(root=str(root), labels="labels.csv")
    assert (data.class_names, data.label_kind) == (("9", "10"), "classes")
    data.number_classes_like(["10", "9"])  # as a checkpoint has them
    assert data.class_names == ("10", "9")
    assert data._labelled("train")[1].tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("header", ["file,angle", "file,label"])
def test_fractions_are_numbers(root, header):
    (root / "labels.csv").write_text(f"{header}\na.png,1.5\nb.png,2\n")
    assert ImageFolder(root=str(root), labels="labels.csv").label_kind == "numbers"
    (root / "labels.csv").write_text("file,x,y\na.png,1,0\nb.png,2,1\n")
    assert ImageFolder(root=str(root), labels="labels.csv").target_names == ("x", "y")


def test_folders_of_splits_count(root):
    for split in ("train", "test"):
        (root / split).mkdir()
        for name in ("x.png", "y.png"):
            Image.new("L", (8, 8)).save(root / split / f"{split}_{name}")
    rows = [f"{split}/{split}_{name}.png,{name}" for split in ("train", "test") for name in "xy"]
    (root / "labels.csv").write_text("\n".join(["file,class", *rows]))
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8, val_split=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup()
    assert (len(data.train), len(data.test), data.splits_test_by_seed) == (2, 2, False)
    assert "2 classes" in str(data.found)


def test_labels_of_pictures_beside_training_and_test_leave_the_test_set_as_it_is(root):
    for split in ("train", "test", "unlabelled"):
        (root / split).mkdir()
        for name in "xy":
            Image.new("L", (8, 8)).save(root / split / f"{split}_{name}.png")
    rows = [f"{split}/{split}_{name}.png,{name}" for split in ("train", "test") for name in "xy"]
    (root / "labels.csv").write_text("\n".join(["file,class", *rows, "unlabelled/unlabelled_x.png,x"]))
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8, val_split=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.setup()
    assert (len(data.train), len(data.test), data.splits_test_by_seed) == (3, 2, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            PLAIN + "a.png,dog\n",
            r"^labels must have one class for each file, got cat and dog in .*labels\.csv for a\.png\.$",
        ),
        (
            "file,class\nelse/a.png,cat\n",
            "^labels must tell pictures apart, got else/a.png in .*, which may be a.png and other",
        ),
        ("file,class\nx.png,cat\n", "^labels must name pictures below .*root with their class, got x.png in "),
        ("file,class\na.png,\n", "^labels must have the class of some pictures, got a table without any in "),
        ("a.png,cat\nb.png,dog\n", "^labels must be a table with the header file,class or file,NUMBER"),
        ("filename,cat,dog\na.png,1,1\n", "^labels must have one class for each file, got cat and dog in row 2 of "),
        ('image,choice\na.png,"{""choices"":[""cat"",""dog""]}"\n', "^labels must have one class for each file, got {"),
        ("file,class\na.png,cat\nb.png,cat\n", "^labels must have two classes or more to train on, got cat alone"),
    ],
)
def test_what_is_refused(root, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        labelled(root, text)


def test_a_table_that_is_not_there(root):
    with pytest.raises(DataNotFoundError, match=r"labels must be a table, got .*nowhere\.csv, which is not there"):
        _ = ImageFolder(root=str(root), labels="nowhere.csv").class_names


@pytest.mark.filterwarnings("ignore")
def test_the_table_and_not_the_folders_say_what_a_predicted_picture_is(root):
    (root / "labels.csv").write_text("file,class\nin/c.png,other\nother/a.png,in\nb.png,new\n")
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8, channels=1)
    data._trained_classes = ("in", "other")
    data.setup("predict")
    assert dict(zip(NAMES, data.predict.labels.tolist(), strict=True)) == dict.fromkeys(NAMES, -1) | {
        "in/c.png": 1,
        "other/a.png": 0,
    }
    assert data.knows_labels_of(["in", "other"])
    # Numbers in the table are no classes, and classes no numbers.
    (root / "labels.csv").write_text("file,x\na.png,1.5\nin/c.png,2.5\n")
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8, channels=1)
    data.target_names, data.mean, data.std = (), [0.0], [1.0]
    data.setup("predict")
    assert not data.knows_labels_of(["in", "other"])
    data = ImageFolder(root=str(root), labels="labels.csv", image_size=8, channels=1)
    data.target_names, data.mean, data.std = ("x",), [0.0], [1.0]
    data.setup("predict")
    assert data.predict.labels.flatten().nan_to_num(-1).tolist() == [1.5, -1, 2.5, -1, -1]


def test_empty_rows_at_the_end_of_a_table_are_no_rows(root):
    classes, said = labelled(root, "file;class;\na.png;cat;\nb.png;dog;\n;;\n;;\n")
    assert classes == {"a.png": "cat", "b.png": "dog"}
    assert "name no picture" not in said
