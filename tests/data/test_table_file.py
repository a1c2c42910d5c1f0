"""Tables as pandas, databases and people write them: headers, separators, index columns, truth values, decimals."""

import tracemalloc
import warnings
from decimal import Decimal

import numpy as np
import pytest

from bnn_lightning.data import Table
from bnn_lightning.data.table_file import read_table
from bnn_lightning.preprocessing.columns import numbers_of
from bnn_lightning.preprocessing.rows import column_of
from bnn_lightning.preprocessing.tables import RowPreparation
from tests.data.test_table import HEADER, lines, set_up, write


@pytest.fixture
def csv(tmp_path):
    return write(tmp_path / "people.csv", HEADER + "\n".join(lines()))


@pytest.mark.parametrize(
    ("text", "names", "rows"),
    [
        ("RI,Na,Mg,Type\n1,2,3,4\n5,6,7,8", ("RI", "Na", "Mg", "Type"), 2),  # Na is no missing value here
        ("name,2019,2020,y\nann,1,2,3\nbob,4,5,6", ("name", "2019", "2020", "y"), 2),
        ("1,?,3\n4,5,6", ("0", "1", "2"), 2),
        ("1.2O,2\n3,4", ("0", "1"), 2),  # a slip in the first row is none of a header
        ('"Length, m";"Width, m";y\n1;2;3\n4;5;6', ("Length, m", "Width, m", "y"), 2),
        ('"a", "b"\n1, 2\n3, 4', ("a", "b"), 2),
        ('"a\nb",c\n1,2', ("a\nb", "c"), 1),
        ("0,1,2\n.5,1,2\n.1,3,4", ("0", "1", "2"), 2),  # pandas of an array
        (",0,1\n0,.5,2\n1,.7,4", ("Unnamed: 0", "0", "1"), 2),  # with its numbers of rows
        ("0,1,3\n1,2,4", ("0", "1", "2"), 2),
        ("a,b,\n1,2,\n3,4,", ("a", "b"), 2),  # a separator at the ends
        ("sep=;\na;b\n1;2\n3;4", ("a", "b"), 2),  # of Excel
        ('"sep=\t"\r\na\tb, c\r\n1\t2\r\n', ("a", "b, c"), 1),
        ("sep=:\na:b\n1:2", ("a", "b"), 1),
        ("text,y\none\u2028two,1\n", ("text", "y"), 1),
    ],
)
def test_headers_separators_and_quotes(tmp_path, text, names, rows):
    table = read_table(tmp_path / write(tmp_path / "a.csv", text))
    assert (tuple(table.columns), len(table)) == (names, rows)


def test_a_first_row_that_may_be_names_or_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^path must be a table whose first row is names or numbers, got 0 and 1 in "):
        read_table(tmp_path / write(tmp_path / "a.csv", "0,1\n1,3\n2,5"))


def test_a_first_row_with_numbers_that_may_name_the_columns_is_said(tmp_path):
    path = write(tmp_path / "a.csv", "country,2019,2020\nde,1,2\nfr,3,4\n")
    sentence = f"^the first row of {path}, country, 2019, 2020, is taken for values, .* such as y2019 for 2019\\.$"
    with pytest.warns(UserWarning, match=sentence):
        assert len(read_table(tmp_path / "a.csv")) == 3
    for text in ("de,1,2\nfr,3,4\nde,5,6\n", "country,y2019,2020\nde,1,2\nfr,3,4\n", "3,4\n5,6\n", "de,1,2\n"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_table(tmp_path / write(tmp_path / "a.csv", text))


def test_numbers_of_a_parquet_file_are_float64(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "whole": pa.array([1, None, 3], pa.int16()),
        "single": pa.array([0.5, 1.5, None], pa.float32()),
        "truth": pa.array([True, None, False]),
        "digits": pa.array(["1.5", "2", None]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    table = read_table(tmp_path / "a.parquet")
    np.testing.assert_array_equal(table.columns["whole"], [1, np.nan, 3])
    np.testing.assert_array_equal(table.columns["single"], [0.5, 1.5, np.nan])
    assert [column.dtype == np.float64 for column in table.columns.values()] == [True, True, False, False]
    assert table.columns["truth"].tolist() == ["True", "", "False"]
    np.testing.assert_array_equal(numbers_of(table, "digits", "target"), [1.5, 2, np.nan])
    parquet.write_table(pa.table({"digits": pa.array(["1.5", "inf"])}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"^target must be finite numbers, got an infinite digits in row 2 of "):
        numbers_of(read_table(tmp_path / "b.parquet"), "digits", "target")


def test_values_of_python_that_stand_for_nothing():
    np.testing.assert_array_equal(column_of([1.5, "", None, float("nan")]), [1.5, np.nan, np.nan, np.nan])
    pandas = pytest.importorskip("pandas")
    np.testing.assert_array_equal(column_of([2, pandas.NA, pandas.NaT]), [2, np.nan, np.nan])
    assert column_of(["a", pandas.NA]).tolist() == ["a", ""]


def test_numbers_of_rows_that_pandas_writes_are_no_features(tmp_path):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": range(20), "b": range(20, 40), "y": range(20)}).query("a != 3")
    frame.to_csv(tmp_path / "frame.csv")
    table = set_up("fit", path=str(tmp_path / "frame.csv"))
    assert (table.columns.names, table.target_names) == (["a", "b"], ("y",))
    assert "; left out, for it numbers the rows: Unnamed: 0; test rows" in table.found
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "frame.parquet")
    table = set_up("fit", path=str(tmp_path / "frame.parquet"))
    assert (table.columns.names, table.target_names) == (["a", "b"], ("y",))
    assert "left out, for it numbers the rows: __index_level_0__" in table.found
    frame.set_index("a").to_parquet(tmp_path / "named.parquet")
    assert set_up("fit", path=str(tmp_path / "named.parquet")).columns.names == ["b"]
    assert set_up("fit", path=str(tmp_path / "named.parquet"), features=["a", "b"]).columns.names == ["a", "b"]


def test_truth_values_and_decimals_are_the_same_from_every_source(tmp_path):
    truths = [n % 3 == 0 for n in range(20)]
    text = "a,flag,y\n" + "\n".join(f"{n},{truth},{n}.5" for n, truth in enumerate(truths))
    table = set_up("fit", path=write(tmp_path / "a.csv", text))
    assert table.columns.names == ["a", "flag=False", "flag=True"]
    preparation = RowPreparation.of(table.describe())
    (expected,) = preparation.batches([{"a": 1, "flag": "True"}, {"a": 2, "flag": "False"}], 9)
    for flags in ((True, False), ("true", "FALSE"), (np.True_, np.False_), (True, "False")):
        (found,) = preparation.batches([{"a": 1, "flag": flags[0]}, {"a": Decimal(2), "flag": flags[1]}], 9)
        assert found.x.equal(expected.x)
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "flag": [True, False]})
    assert next(preparation.batches(frame, 9)).x.equal(expected.x)
    with pytest.raises(ValueError, match=r"^features must be finite numbers, got an infinite a in row 0 of the list"):
        preparation.batches([{"a": 10**400, "flag": True}], 9)
    with pytest.raises(ValueError, match=r"^rows must have columns of different names, got a twice\.$"):
        preparation.batches(pandas.DataFrame([[1, 2, True]], columns=["a", "a", "flag"]), 9)
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"a": range(20), "flag": truths, "y": [Decimal(f"{n}.5") for n in range(20)]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    theirs = set_up("fit", path=str(tmp_path / "a.parquet"))
    assert theirs.train.features.equal(table.train.features)
    assert theirs.train.labels.equal(table.train.labels)


def test_rows_to_predict_need_no_target_that_can_be_read(tmp_path, csv):
    new = Table(path=write(tmp_path / "new.csv", "age,colour,height,price\n1,red,2,TBD\n"))
    new.prepare_like(set_up("fit", path=csv).describe(), labelled=False)
    new.setup("predict")
    assert new.predict.labels.isnan().all()


def test_no_row_is_lost(tmp_path):
    # Cells without a value are a row; a quotation mark that does not end is a sentence, and not the end of the table.
    assert len(read_table(tmp_path / write(tmp_path / "a.csv", "a,b\n1,2\n,\n\n3,4\n"))) == 3
    long = "a,b\n" + "1,2\n" * 300 + '3,"' + "4,5\n" * 40_000
    with pytest.raises(ValueError, match=r"^path must be a table, got .*, which cannot be read: field larger than"):
        read_table(tmp_path / write(tmp_path / "b.csv", long))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('name,y\n"ann,1\nbob,2\ncy,3\n', "unexpected end of data in the row that begins in line 2; a cell"),
        ('name,y\nann,1\n"bob,2\n"cy",3\n', "',' expected after '\"' in the row that begins in line 3; a cell"),
        ('name,y\n\n1,"5" by 2"\nbob,"2\ncy,3\n', "unexpected end of data in the row that begins in line 4; a cell"),
    ],
)
def test_a_quotation_mark_that_does_not_end_takes_no_other_rows(tmp_path, text, said):
    with pytest.raises(ValueError, match=rf"^path must be a table, got .*, which cannot be read: {said} that begins"):
        read_table(tmp_path / write(tmp_path / "a.csv", text))
    read_table(tmp_path / write(tmp_path / "b.csv", 'name,y\n"an\nn",1\n"bob" ,2\n5" pipe,3\n'))


def test_features_may_be_a_single_name(csv):
    assert set_up("fit", path=csv, features="age").columns.names == ["age"]


def test_a_table_of_text_takes_a_few_times_its_size_while_it_is_read(tmp_path):
    cells = np.random.default_rng(0).normal(size=(30_000, 8)).astype(str)
    path = write(tmp_path / "a.csv", "\n".join(map(",".join, [list("abcdefgh"), *cells])))
    read_table(tmp_path / path)  # imports what it needs
    tracemalloc.start()
    table = read_table(tmp_path / path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(table.columns["h"], cells[:, 7].astype(np.float64))
    assert peak < 72 * cells.size  # which a list of all cells as single texts would take


def test_equal_texts_of_a_column_are_one_object(tmp_path):
    path = write(tmp_path / "a.csv", "kind,y\n" + "one,1\ntwo,2\n" * 20)
    for texts in ((), ["kind"]):
        assert len({id(text) for text in read_table(tmp_path / path, texts).columns["kind"]}) == 2


def test_text_in_utf_16_is_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes("a,y\n1,2\n".encode("utf-16-le"))  # valid UTF-8, with a NUL beside each letter
    with pytest.raises(ValueError, match=r"^path must be a table as text or Parquet, .* text must be in UTF-8\.$"):
        read_table(tmp_path / "a.csv")


def test_columns_of_a_parquet_file_have_different_names(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_arrays([[1.0], [2.0]], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"^path must be a table whose columns have different names, got a twice in "):
        read_table(tmp_path / "a.parquet")


def test_texts_of_digits_are_categories_or_are_to_be_saved_as_numbers(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    codes = [f"0{n % 12}" for n in range(60)]
    for texts in (codes, [f"0{n}" for n in range(60)]):
        columns = {"code": texts, "y": [n * 0.5 for n in range(60)]}
        parquet.write_table(pyarrow.table(columns), tmp_path / f"{texts[-1]}.parquet")
    assert set_up("fit", path=str(tmp_path / f"{codes[-1]}.parquet")).columns.levels == {"code": sorted(set(codes))}
    sentence = r"^features must leave code out, which has 60 different .* if they are numbers, save them as such\.$"
    with pytest.raises(ValueError, match=sentence):
        set_up("fit", path=str(tmp_path / "059.parquet"))


@pytest.mark.parametrize("separator", [";", "\t", "|"])
def test_decimal_commas_separate_no_cells(tmp_path, separator):
    text = "\n".join(separator.join([f"{n % 5},5", f"{n % 3},5", f"-{n},25"]) for n in range(40))
    with pytest.raises(
        ValueError, match=r"^features must have decimal points, got 0 with decimal commas, such as 0,5 "
    ):
        set_up("fit", path=write(tmp_path / "a.csv", text))
    assert len(read_table(tmp_path / write(tmp_path / "b.csv", "1,a;b,2\n3,a;b,4\n")).columns) == 3
