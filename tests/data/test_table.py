"""Tables: columns, splits, units, and each bad input in one sentence."""

import re

import numpy as np
import pytest
import torch

from bnn_lightning.data import DataNotFoundError, Table

HEADER = "age,colour,height,price\n"


def lines(count=40, seed=0):
    """Rows of a table whose price depends on the others."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        age, colour, height = rng.integers(1, 90), rng.choice(["red", "blue"]), rng.normal(170, 10)
        rows.append(f"{age},{colour},{height:.1f},{1000 + 3 * age + 50 * (colour == 'red'):.1f}")
    return rows


def write(path, text):
    path.write_text(text)
    return str(path)


@pytest.fixture
def csv(tmp_path):
    return write(tmp_path / "people.csv", HEADER + "\n".join(lines()))


def set_up(*stages, **settings):
    table = Table(**settings)
    for stage in stages:
        table.setup(stage)
    return table


def test_errors_name_the_argument_of_the_file(csv, tmp_path):
    write(tmp_path / "green.csv", HEADER + "3,green,170,1000\n")
    write(tmp_path / "no_target.csv", "age,colour,height\n3,red,170\n")
    for setting, given in (("test_path", str), ("ood", lambda file: [file])):
        for file, sentence in {
            "nowhere.csv": "must be a table, got .* which is not there",
            "green.csv": "must be a table whose colour is one of blue, red, as in training, got 'green' in row 2",
        }.items():
            with pytest.raises((ValueError, DataNotFoundError), match=f"^{setting} {sentence}"):
                set_up("fit", "test", path=csv, **{setting: given(str(tmp_path / file))})
    with pytest.raises(ValueError, match=r"^test_path must be a table with the target price, got "):
        set_up("fit", "test", path=csv, test_path=str(tmp_path / "no_target.csv"))


def test_other_rows_of_two_files_with_one_name_are_two_sets(csv, tmp_path):
    files = []
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        rows = lines(count=5 * number, seed=number)
        files.append(write(tmp_path / str(number) / "rows.csv", HEADER + "\n".join(rows)))
    table = set_up("fit", "test", path=csv, ood=files)
    assert {name: len(rows) for name, rows in table.test_sets.items()} == {"people": 4, "ood/rows": 5, "ood/rows-2": 10}


def test_texts_are_one_hot_and_everything_is_standardised_by_the_training_rows(csv):
    table = set_up("fit", "test", path=csv)
    assert table.target_names == ("price",)
    assert table.columns.names == ["age", "colour=blue", "colour=red", "height"]
    assert (table.in_features, table.num_targets, table.label_kind) == (4, 1, "numbers")
    assert [len(part) for part in (table.train, table.selection, table.calibration, table.test)] == [29, 3, 4, 4]
    torch.testing.assert_close(table.train.features.mean(0), torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(table.train.features.std(0, correction=0), torch.ones(4))
    # Targets are in their own units; mean and std of training are beside them.
    assert table.train.labels.min() > 1000
    assert table.target_mean[0] == pytest.approx(table.train.labels.mean().item(), rel=1e-6)
    # Every row of the file is in one part, with the features that the file says.
    mean, std = torch.tensor(table.mean), torch.tensor(table.std)
    rows = torch.cat(
        [
            torch.cat([part.features * std + mean, part.labels], 1)
            for part in (table.train, table.selection, table.calibration, table.test)
        ]
    )
    expected = []
    for line in lines():
        age, colour, height, price = line.split(",")
        expected.append([float(age), colour == "blue", colour == "red", float(height), float(price)])
    expected = torch.tensor(expected)
    torch.testing.assert_close(rows[rows[:, 4].argsort()], expected[expected[:, 4].argsort()], rtol=1e-4, atol=1e-3)


def test_a_loader_serves_each_row_once_and_goes_on_where_it_was(csv):
    table = set_up("fit", path=csv, batch_size=8)
    loader = table.train_dataloader()
    batches = list(loader)
    assert [len(y) for _, y in batches] == [8, 8, 8, 5]
    assert torch.cat([y for _, y in batches]).sort(0).values.equal(table.train.labels.sort(0).values)
    first = table.train_dataloader()
    iterator = iter(first)
    next(iterator)
    other = table.train_dataloader()
    other.load_state_dict(first.state_dict())
    for (x, y), (again_x, again_y) in zip(iterator, other, strict=True):
        assert x.equal(again_x)
        assert y.equal(again_y)


@pytest.mark.parametrize("separator", [";", "\t", "|", "   "])
def test_other_separators_and_files_without_a_header(tmp_path, separator):
    rows = [separator.join(map(str, row)) for row in np.random.default_rng(0).normal(size=(30, 3)).round(3)]
    table = set_up("fit", path=write(tmp_path / "a.txt", "\n".join(rows)), target=1)
    assert (table.target_names, table.columns.names) == (("1",), ["0", "2"])


def test_several_targets_and_chosen_features(csv):
    table = set_up("fit", path=csv, target=["price", "age"], features=["height"])
    assert table.train.labels.shape == (29, 2)
    assert table.columns.names == ["height"]


def test_missing_values_are_refused_or_the_mean(tmp_path):
    rows = ["?,red,170,1000", "20,,180,1001", *lines()]
    path = write(tmp_path / "a.csv", HEADER + "\n".join(rows))
    refused = (
        "missing must be mean where cells are empty or say NA, None, null, nan or ?, or such rows be removed: age has "
        f"no value in 1 row, the first row 2 of {path}; where such a word is a category, write another."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(refused)}$"):
        set_up("fit", path=path)
    table = set_up("predict", path=path, missing="mean")
    assert table.predict.features[0, 0] == 0  # the mean, standardised
    blue, red = (-table.mean[column] / table.std[column] for column in (1, 2))
    assert table.predict.features[1, 1:3].tolist() == pytest.approx([blue, red], rel=1e-5)


def test_given_splits_are_those_of_the_files(tmp_path):
    rows = np.random.default_rng(0).normal(size=(12, 3)).round(3)
    np.savetxt(tmp_path / "data.txt", rows, fmt="%.3f")
    np.savetxt(tmp_path / "index_features.txt", [0, 2], fmt="%d")
    np.savetxt(tmp_path / "index_target.txt", [1], fmt="%d")
    for split, test in enumerate(([3, 7], [11, 0])):
        np.savetxt(tmp_path / f"index_train_{split}.txt", [n for n in range(12) if n not in test], fmt="%d")
        np.savetxt(tmp_path / f"index_test_{split}.txt", test, fmt="%.1f")
    table = set_up("fit", "test", path=str(tmp_path), split=1, val_split=0)
    assert table.test.labels.flatten().tolist() == pytest.approx(rows[[11, 0], 1])
    assert table.train.labels.flatten().tolist() == pytest.approx(rows[1:11, 1])
    assert len(table.selection) == 0
    assert table.split_settings(of_holdout=False) == ("split",)
    with pytest.raises(ValueError, match=r"^split must be from 0 to 1 for .*, got 2"):
        set_up("fit", path=str(tmp_path), split=2)
    np.savetxt(tmp_path / "index_train_0.txt", [3], fmt="%d")
    with pytest.raises(ValueError, match=r"^split 0 of .* has row 3 in training and in test"):
        set_up("fit", path=str(tmp_path))
    np.savetxt(tmp_path / "index_train_0.txt", [12], fmt="%d")
    with pytest.raises(ValueError, match=r"^path must have whole numbers from 0 to 11 in .*index_train_0.txt"):
        set_up("fit", path=str(tmp_path))
    (tmp_path / "index_target.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"path must be a folder with index_target.txt, got .*, which has none"):
        set_up("fit", path=str(tmp_path))


def test_another_table_is_prepared_as_the_checkpoints(csv, tmp_path):
    trained = set_up("fit", "test", path=csv, target="age")
    description = trained.describe()
    other = Table(write(tmp_path / "new.csv", "price,height,colour\n1,170,red\n2,180,blue"))
    other.prepare_like(description, labelled=False)
    other.setup("predict")
    assert other.predict.labels.isnan().all()
    assert other.predict_names() == ["row 2", "row 3"]  # below a header
    mean, std = (torch.tensor(description[name]) for name in ("mean", "std"))
    torch.testing.assert_close(
        other.predict.features * std + mean,
        torch.tensor([[0, 1, 170, 1], [1, 0, 180, 2]]).float(),
        rtol=1e-4,
        atol=1e-3,
    )
    green = Table(write(tmp_path / "green.csv", "price,height,colour\n1,170,green"))
    green.prepare_like(description, labelled=False)
    with pytest.raises(
        ValueError, match=r"^path must be a table whose colour is one of blue, red, .* 'green' in row 2"
    ):
        green.setup("predict")
    lacking = Table(write(tmp_path / "lacking.csv", "price,colour\n1,red"))
    lacking.prepare_like(description, labelled=False)
    with pytest.raises(ValueError, match=r"^path must be a table with the column height, got .*lacking.csv"):
        lacking.setup("predict")
    with pytest.raises(ValueError, match=r"^data must have no classes|^data must have the targets .*, got price in"):
        Table(csv).prepare_like(description)
    own_test = set_up("test", path=csv, target="age", test_path=csv)
    assert len(own_test.test) == 40


def test_ood_files_are_test_sets(csv, tmp_path):
    far = write(tmp_path / "far.csv", "age,colour,height\n900,red,20\n")
    table = set_up("test", path=csv, ood=[far])
    assert list(table.test_sets) == ["people", "ood/far"]
    assert table.test_sets["ood/far"].features[0, 0] > 10


ROWS = HEADER + "\n".join(lines())


@pytest.mark.parametrize(
    ("text", "settings", "sentence"),
    [
        ("", {}, r"path must be a table with rows, got .*, which is empty"),
        (HEADER, {}, r"path must be a table with rows, got .*, which has a header alone"),
        (f"{ROWS}\n1,2", {}, r"path must be a table with equally many cells in each row, got 2 in row 42 of"),
        ("a,a\n1,2\n3,4", {}, r"path must be a table whose columns have different names, got a twice in"),
        (ROWS, {"target": "prize"}, r"target must be among the columns age, colour, height, price of .*, got prize"),
        (ROWS, {"features": ["weight"]}, r"features must be among the columns .*, got weight"),
        (ROWS, {"features": ["price"]}, r"features must not have the target, got price in both"),
        (
            ROWS,
            {"target": "colour"},
            r"target must be a column of numbers, got colour, where row 2 of .* has '(red|blue)'",
        ),
        (
            f"{ROWS}\n1,red,2,",
            {},
            r"target must have a value in every row, got none of price in 1 row, the first row 42",
        ),
        (f"{ROWS}\n1,red,inf,2", {}, r"features must be finite numbers, got an infinite height in row 42"),
        ("a\n1\n2", {}, r"features must be one column or more, got none beside the target"),
        (
            "a,b\n1,5\n2,5\n3,5\n4,5\n5,5",
            {"test_split": 0.3},
            r"target must vary by .* got b, of mean 5 and standard deviation 0 in training; if it does vary, subtract",
        ),
        (
            "a,b\n" + "\n".join(f"{n},{1.6e9 + n % 7}" for n in range(60)),
            {},
            r"target must vary by more than 1e-05 of its mean, .* got b, of mean 1\.6e\+09 and standard deviation",
        ),
        (
            "a,b\n" + "\n".join(f"x{n},{n}" for n in range(200)),
            {},
            r"features must leave a out, which has 200 different",
        ),
        (
            "a;b\n" + "\n".join(f"{n},5;{n}" for n in range(40)),
            {},
            r"features must have decimal points, got a with decimal commas, such as 0,5 in row 2 of .*; save the table",
        ),
        (
            "a;b\n" + "\n".join(f"{n};1.{n:03},25" for n in range(40)),
            {},
            r"target must have decimal points, got b with decimal commas, such as 1.000,25 in row 2 of",
        ),
        (
            "a,b\n" + "\n".join(f"{'oops' if n == 7 else n},{n % 5}" for n in range(40)),
            {},
            r"features must be columns of numbers or of texts, got a, whose cells are numbers but for 1, the first "
            r"'oops' in row 9 of",
        ),
        (
            "a,b\n" + "\n".join(f"2026-11-{n // 2 + 1:02},{n}" for n in range(48)),
            {},
            r"features must leave a out, which has 24 different texts in the 48 rows of .*, more than 16, such as "
            r"'2026-11-01': is it a name or a date\?",
        ),
        (
            "dose;y\n" + "\n".join(f"{n % 2},5;{n}" for n in range(40)),
            {},
            r"features must have decimal points, got dose with decimal commas, such as 0,5 in row 2",
        ),
        (
            "a,b\n" + "\n".join(f'{n},"{n + 1},000"' for n in range(40)),
            {},
            r"target must have numbers without separators of thousands, got b with commas, such as 1,000 in row 2 of",
        ),
        (f"{ROWS}\n1,red,1e300,2", {}, r"features must be numbers up to 3.4e\+38, got 1e\+300 as height in row 42"),
        ("a,b\n\n1,2\n\n3,x\n4,5", {}, r"target must be a column of numbers, got b, where row 5 of .* has 'x'"),
        ("a,b\n" + "1_0,2\n" * 12, {"target": "a"}, r"target must be a column of numbers, got a, where row 2"),
        ("a,b\n1,2", {}, r"test_split=0.1 leaves no test row of 1 in"),
        (ROWS, {"test_split": 1.0}, r"test_split must be between 0 and 1, such as 0.1, got 1.0"),
        (ROWS, {"missing": "median"}, r"missing must be one of refuse, mean, got median"),
        (ROWS, {"val_split": 1.0}, r"val_split must be from 0 to below 1"),
        (ROWS, {"batch_size": 0}, r"batch_size must be 1 or more, got 0"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, text, settings, sentence):
    path = write(tmp_path / "a.csv", text)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        set_up("fit", path=path, **settings)


def test_what_was_found_is_said_in_a_line(tmp_path, csv):
    found = "40 rows; target price; features: numbers age, height; texts colour (2)"
    assert set_up("fit", path=csv).found == f"{csv}: {found}; test rows, by the seed: 4"
    assert set_up("fit", path=csv, test_path=csv).found == f"{csv}: {found}"
    without = write(tmp_path / "new.csv", "age,colour,height\n1,red,2\n")
    new = Table(path=without)
    new.prepare_like(set_up("fit", path=csv).describe(), labelled=False)
    new.setup("predict")
    assert new.found == f"{without}: 1 row; features: numbers age, height; texts colour (2)"


def test_codes_of_digits_are_texts_where_training_had_texts(tmp_path):
    rows = [f"{code},{n}" for n, code in enumerate(["1234567", "80331-A", "017"] * 15)]
    table = set_up("fit", path=write(tmp_path / "codes.csv", "code,y\n" + "\n".join(rows)))
    new = Table(path=write(tmp_path / "new.csv", "code,y\n1234567,0\n017,0"))
    new.prepare_like(table.describe(), labelled=False)
    new.setup("predict")
    back = new.predict.features * torch.tensor(new.std) + torch.tensor(new.mean)
    torch.testing.assert_close(back, torch.tensor([[0.0, 1, 0], [1, 0, 0]]))


def test_the_digest_of_a_table_is_of_all_that_is_divided(tmp_path, csv):
    again = write(tmp_path / "again.csv", HEADER + "\n".join(lines()))
    assert Table(path=csv).divided_examples == Table(path=again).divided_examples
    for number, rows in enumerate((lines()[:-1], [*lines(), lines()[0]], lines()[::-1])):
        other = write(tmp_path / f"{number}.csv", HEADER + "\n".join(rows))
        assert Table(path=other).divided_examples != Table(path=csv).divided_examples


def test_files_that_are_not_there_or_no_text(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"^path must be a table, got .*none.csv, which is not there"):
        set_up("fit", path=str(tmp_path / "none.csv"))
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(
        ValueError, match=r"^path must be a table as text or Parquet, got .*, which is neither; text must be in UTF-8"
    ):
        set_up("fit", path=str(tmp_path / "a.csv"))


def test_parquet_needs_pyarrow(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        sentence = "path must be a table as text where pyarrow is not installed"
    else:
        sentence = "path must be a Parquet file, got"
    with pytest.raises(ValueError, match=f"^{sentence}"):
        set_up("fit", path=str(path))


def test_parquet_has_the_same_rows(tmp_path, csv):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    cells = list(zip(*(line.split(",") for line in lines()), strict=True))
    columns = {
        name: cells[n] if n == 1 else [float(cell) for cell in cells[n]]
        for n, name in enumerate(HEADER.strip().split(","))
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "people.parquet")
    ours, theirs = (set_up("fit", path=path) for path in (str(tmp_path / "people.parquet"), csv))
    assert ours.train.features.equal(theirs.train.features)
    assert ours.train.labels.equal(theirs.train.labels)
