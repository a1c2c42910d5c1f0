"""Parquet: classes of pictures, as a table of text has them, and columns that hold neither numbers nor texts."""

import pytest

from bnn_lightning.data import ImageFolder, Table
from bnn_lightning.data.table_file import read_table
from tests.data.conftest import CLASSES, labelled

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize(
    ("classes", "as_text"),
    [
        ({"kind": ["cat", "dog", "cat", "dog"]}, "kind\na.png,cat\nb.png,dog\nin/c.png,cat\nin/d 2.png,dog"),
        ({"label": [1, None, 10, 2]}, "label\na.png,1\nb.png,\nin/c.png,10\nin/d 2.png,2"),
        ({"label": [1.0, None, 10.0, 2.0]}, "label\na.png,1\nb.png,\nin/c.png,10\nin/d 2.png,2"),
        (
            {"x": [[1], [], None, [2, 3]], "class": pyarrow.array(["none", "b", "none", "b"]).dictionary_encode()},
            "class\na.png,none\nb.png,b\nin/c.png,none\nin/d 2.png,b",
        ),
        ({"cat": [1, 0, 1, 0], "dog": [0, 1, 0, 1]}, "class\na.png,cat\nb.png,dog\nin/c.png,cat\nin/d 2.png,dog"),
    ],
)
def test_classes_are_those_of_a_table_of_text(root, tmp_path, classes, as_text):
    parquet.write_table(pyarrow.table({"file": list(CLASSES)} | classes), tmp_path / "labels.parquet")
    found = labelled(root, "", "unused.csv", "labels.parquet")
    assert found[0] == labelled(root, "file," + as_text)[0]


def test_numbers_are_still_numbers(root, tmp_path):
    columns = {"file": list(CLASSES), "age": [1.5, 2.0, 3.0, 4.0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
    data = ImageFolder(root=str(root), labels="labels.parquet", image_size=8)
    assert (data.label_kind, data.target_names) == ("numbers", ("age",))


def test_files_may_be_large_whole_numbers(root, tmp_path):
    (root / "a.png").rename(root / "12345678901234567.png")
    (root / "b.png").rename(root / "12345678901234568.png")
    for labels in ({"class": ["cat", "dog"]}, {"age": [1.5, 2.5]}):
        columns = {"id": [12345678901234567, 12345678901234568]} | labels
        parquet.write_table(pyarrow.table(columns), tmp_path / "labels.parquet")
        data = ImageFolder(root=str(root), labels="labels.parquet", image_size=8)
        assert len(data._layout.labelled("train", data.class_names)[0]) == 2


@pytest.mark.parametrize("cells", [[[1.0, 2.0]] * 20, [{"a": 1}] * 20, [b"a", b"b"] * 10])
def test_columns_of_neither_numbers_nor_texts_are_no_features(tmp_path, cells):
    columns = {"a": cells, "b": range(20), "y": range(20)}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    sentence = r"^features must be columns of numbers or of texts, got a of .*, whose cells are .*; give each number a "
    with pytest.raises(ValueError, match=sentence):
        Table(path=str(tmp_path / "a.parquet")).setup("fit")
    Table(path=str(tmp_path / "a.parquet"), features="b").setup("fit")


def test_a_text_that_is_damaged_is_told_as_a_damaged_file(tmp_path):
    path = tmp_path / "a.parquet"
    columns = pyarrow.table({"x": [1.0, 2.0], "name": ["first", "second"]})
    parquet.write_table(columns, path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"second", b"\xffecond"))
    with pytest.raises(ValueError, match=r"^path must be a Parquet file, got .*a\.parquet: "):
        read_table(path)
