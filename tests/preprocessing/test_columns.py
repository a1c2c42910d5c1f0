"""Cells of new rows are what they are by the texts that training had, whatever file and whatever other rows."""

from decimal import Decimal

import pytest
import torch

from bnn_lightning.data import Table
from bnn_lightning.data.table_file import read_table
from bnn_lightning.preprocessing.columns import Columns
from bnn_lightning.preprocessing.tables import RowPreparation

LEVELS = {"size": None, "drug": ["A", "NA", "None"], "flag": ["false", "maybe", "true"], "sure": ["False", "True"]}
COLUMNS = Columns(LEVELS)
HEADER = ",".join(LEVELS) + "\n"


def encoded(tmp_path, kind, rows):
    """The features of rows of texts, from a file or from Python."""
    path = tmp_path / f"rows.{kind}"
    cells = [dict(zip(LEVELS, row, strict=True)) for row in rows]
    if kind == "dict":
        preparation = RowPreparation(COLUMNS, "mean", (0.0,) * 9, (1.0,) * 9)
        return torch.cat([batch.x for batch in preparation.batches(cells, 9)]).double()
    if kind == "csv":
        path.write_text(HEADER + "\n".join(map(",".join, rows)))
    else:
        pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pa.Table.from_pylist(cells), path)
    texts = [name for name, levels in LEVELS.items() if levels is not None]
    return COLUMNS.encoded(read_table(path, texts), "mean")


ROWS = {
    ("1", "None", "true", "true"): [1, 0, 0, 1, 0, 0, 1, 0, 1],
    ("2", "NA", "false", "FALSE"): [2, 0, 1, 0, 1, 0, 0, 1, 0],
    ("3", "none", "NA", "null"): [3, *[0] * 8],  # words that training did not have as texts are no value
    ("4", "A", "TRUE", "True"): [4, 1, 0, 0, 0, 0, 1, 0, 1],
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "dict"])
def test_a_cell_is_the_same_from_every_source_and_beside_every_other(tmp_path, kind):
    expected = torch.tensor(list(ROWS.values())).double()
    for chosen in ([0, 1, 2, 3], [0], [1], [2], [3], [0, 1]):
        found = encoded(tmp_path, kind, [list(ROWS)[number] for number in chosen])
        if kind == "dict":
            found = found.nan_to_num()
        torch.testing.assert_close(found, expected[chosen], rtol=0, atol=0)


def test_a_word_for_no_value_is_none_among_numbers_of_any_source(tmp_path):
    for kind in ("csv", "parquet", "dict"):
        found = encoded(tmp_path, kind, [("NA", "A", "true", "True"), ("2", "A", "true", "True")])
        assert found[:, 0].nan_to_num(0).tolist() == [0, 2]


def test_truth_values_and_decimals_of_python_are_texts_that_training_had():
    columns = Columns({"flag": ["false", "maybe", "true"], "dose": ["0.5", "high"]})
    preparation = RowPreparation(columns, "refuse", (0.0,) * 5, (1.0,) * 5)
    rows = [{"flag": True, "dose": Decimal("0.50")}, {"flag": "maybe", "dose": "high"}]
    (batch,) = preparation.batches(rows, 9)
    assert batch.x.tolist() == [[0, 0, 1, 1, 0], [0, 1, 0, 0, 1]]
    (alone,) = preparation.batches(rows[0], 9)
    assert alone.x.equal(batch.x[:1])


def test_the_mean_of_training_can_be_asked_for_where_training_had_no_gaps(tmp_path):
    (tmp_path / "full.csv").write_text("a,kind,y\n" + "\n".join(f"{n},{'xz'[n % 2]},{n % 5}" for n in range(30)))
    (tmp_path / "gaps.csv").write_text("a,kind\n,x\n3,\n")
    trained = Table(str(tmp_path / "full.csv"))
    trained.setup("fit")

    def predicted(missing, description):
        table = Table(str(tmp_path / "gaps.csv"), missing=missing)
        table.prepare_like(description, labelled=False)
        table.setup("predict")
        return table.predict.features

    description = trained.describe()
    asked = predicted("mean", description)
    assert asked[0, 0] == 0
    assert predicted("refuse", description | {"missing": "mean"}).equal(asked)
    with pytest.raises(ValueError, match=r"^missing must be mean where cells are empty .*: a has no value in 1 row"):
        predicted("refuse", description)
    with pytest.raises(
        ValueError,
        match=r"^rows must have a value in each column, .* trained with missing: refuse: a has no value in 1 row, the "
        r"first row 0 of the list of rows; fill the cells, or train with --data\.missing mean\.$",
    ):
        RowPreparation.of(description).batches({"a": None, "kind": "x"}, 9)
