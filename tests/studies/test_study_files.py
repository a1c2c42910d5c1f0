"""A study file: its cells, their commands, and the sentence that refuses one."""

import re
from pathlib import Path

import pytest

from bnn_lightning.cli import UsageError, main
from bnn_lightning.studies import rows, study
from bnn_lightning.studies.base import Study
from tests.helpers import ROOT
from tests.studies.helpers import GRID

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))


def test_cells_are_the_product_of_the_axes_then_the_others(write):
    parsed = Study.read(write(grid=GRID, cells={"more": {"model.lr": 5, "seeds": [7]}}, set={"model.lr": 9}, seeds=[1]))
    assert parsed.axes == ["method", "lr"]
    cells = list(parsed.all_cells())
    assert [cell.name for cell in cells] == ["BBB, lr 0.1", "BBB, lr 1", "LRT, lr 0.1", "LRT, lr 1", "more"]
    assert [cell.seeds for cell in cells] == [(1,), (1,), (0, 3), (0, 3), (7,)]
    assert cells[1].flags == {"model.lr": 1, "model.method": "BBB"}
    assert cells[4].flags == {"model.lr": 5}


def test_every_cell_has_a_run_before_any_has_two(write):
    tasks = Study.read(write(grid=GRID, seeds=[0, 1])).tasks()
    assert [task.seed for task in tasks] == [0, 0, 0, 0, 1, 1, 3, 3]


def test_the_command_is_what_a_person_would_type(write):
    grid = {"data": {"some": {"data.train_subset": [0, 50], "data.flip": True, "model.method": None}}}
    task = Study.read(write(grid=grid)).tasks()[0]
    assert task.command.startswith(
        "bnn fit --config base.yaml --data.train_subset '[0, 50]' --data.flip true --model.method null "
        "--seed_everything 0 --name tiny_some_seed0_"
    )


def test_a_flag_can_have_the_seed_of_the_run(write):
    tasks = Study.read(write(cells={"a": {"data.split": "{seed}"}}, seeds=[0, 7])).tasks()
    assert [task.fit_arguments[3:5] for task in tasks] == [["--data.split", "0"], ["--data.split", "7"]]
    assert tasks[0].settings == tasks[1].settings


def test_an_ensemble_has_the_networks_of_the_cell_that_has_its_flags(write):
    flags = {"model.method": "LRT"}
    study = Study.read(
        write(cells={"one": flags, "three": flags | {"members": 3, "seeds": [0, 1]}, "two": {"members": 2}})
    )
    one, three, _, again = study.tasks()[0], study.tasks()[1], study.tasks()[2], study.tasks()[3]
    assert [of_one.seed for of_one in (*three.members, *again.members)] == [0, 1, 2, 3, 4, 5]
    assert three.members[0] == one
    assert three.settings == again.settings != one.settings
    first, *others = [f"checkpoints/{of_one.run_name}/version_0/last.ckpt" for of_one in three.members]
    assert three.command == (
        f"""bnn ensemble --ckpt_path {first} --members '["{others[0]}", "{others[1]}"]' """
        f"--output {first.replace('last', 'ensemble_of_3_last')}"
    )
    own = study.tasks()[2].members
    assert [of_one.cell.name for of_one in own] == ["two", "two"]
    assert own[0].cell.members == 1


def test_settings_are_told_apart_by_all_that_was_asked_for(write, tmp_path):
    def digest(**settings):
        return Study.read(write(**settings)).tasks()[0].settings

    plain = digest(grid=GRID)
    assert digest(grid=GRID, title="Another", about="words") == plain
    others = [digest(grid=GRID, set={"data.flip": True}), digest(grid=GRID, test={"model.test_samples": 3})]
    others.append(digest(grid=GRID, checkpoint="best"))
    path = write(grid=GRID)
    base = tmp_path / "base.yaml"
    base.write_text(base.read_text().replace("batch_size: 32", "batch_size: 33"))
    others.append(Study.read(path).tasks()[0].settings)
    assert len({plain, *others}) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grid": GRID, "sets": {}}, r"knows no sets; it can have about, against, at, base, cells, "),
        ({"base": None, "grid": GRID}, r"base must be text, got None\."),
        ({"base": "other.yaml", "grid": GRID}, r"base must be a config file, got other\.yaml\."),
        ({}, r"there must be a grid, cells or both, or else a search\."),
        ({"grid": GRID, "search": {"model.lr": [1]}}, r"there must be a grid, cells or both, or else a search\."),
        ({"search": {"model.lr": [1]}}, r"trials must be 1 or more for a search, got 0\."),
        ({"grid": [1]}, r"grid must be settings by name, got \[1\]\."),
        ({"grid": {"data": {"MNIST": "MNIST"}}}, r"data: MNIST must be flags with their values, got 'MNIST'\."),
        ({"grid": {"model.lr": []}}, r"grid: model\.lr must have at least one value, got \[\]\."),
        ({"grid": {"model.lr": 1}}, r"grid: model\.lr must be a list of values, or names with flags, got 1\."),
        ({"grid": GRID, "seeds": 3}, r"seeds must be a list, got 3\."),
        (
            {"cells": {"a": {"seeds": ["x"]}}},
            r"cells: a: seeds must be a list of different whole numbers such as .* got \['x'\]",
        ),
        ({"grid": GRID, "seeds": [1, 1]}, r"seeds must be a list of different whole numbers .* got \[1, 1\]"),
        ({"cells": {"a": {"members": 0}}}, r"cells: a: members must be 1 or more, got 0\."),
        ({"cells": {"a": {"members": "5"}}}, r"cells: a: members must be a whole number, got '5'\."),
        ({"search": {"model.lr": ["1", 1]}, "trials": 1}, r"search: model\.lr has 1 twice\."),
        ({"grid": {"seed": {"a": {}}}}, r"an axis must not be called seed, which is another column"),
        ({"grid": {"seconds": {"a": {}}}}, r"an axis must not be called seconds, which is another column"),
        ({"grid": GRID, "columns": ["speed"]}, r"columns must be among accuracy, one_accuracy, .* got speed\."),
        ({"grid": GRID, "columns": [1]}, r"a column must be text, got 1\."),
        ({"grid": {1: [2]}}, r"an axis of the grid must be text, got 1\."),
        ({"grid": GRID, "score": ["nll"]}, r"score must be text"),
        ({"grid": GRID, "rankings": [["nll"]]}, r"rankings must be one of .* got \['nll'\]\."),
        ({"grid": GRID, "rankings": ["sparsity_by_layer"]}, r"rankings must be one of .* got sparsity_by_layer\."),
        ({"grid": GRID, "score": "median_nll"}, r"score must be one of accuracy, .* got median_nll\."),
        ({"grid": GRID, "published": {"accuracy": {"BBB, lr 1": "x"}}}, r"BBB, lr 1 must be a number, got 'x'\."),
        ({"grid": GRID, "claims": ["a"]}, r"a claim must have higher, says, than, perhaps .* got 'a'\."),
        ({"grid": GRID, "claims": [{"says": "", "higher": "BBB, lr 1", "than": {"lr": "lr 1"}}]}, r"must compare two"),
        (
            {"search": {"model.lr": {"low": "1e-4", "high": 1}}, "trials": 1},
            r"YAML reads 1e-4 as text, write 0\.0001\.",
        ),
        ({"search": {"model.lr": {"low": 0, "high": 1, "log": True}}, "trials": 1}, r"low above 0 for log, got 0\."),
        ({"search": {"model.lr": {"low": 1, "high": float("inf")}}, "trials": 1}, r"must be a list of choices or"),
        ({"search": {1: [2]}, "trials": 1}, r"search: a flag must be text, got 1\."),
        ({"cells": {"a": {1: 2, "b": 3}}}, r"cells: a: a flag must be text, got 1\."),
        ({"grid": GRID, "set": {"seeds": []}}, r"set: seeds must be a list of different whole numbers .* got \[\]\."),
        ({"grid": {"seeds": [0, 1]}}, r"grid: seeds must be a list of different whole numbers .* got 0\."),
        ({"grid": {"members": ["x"]}}, r"grid: members must be a whole number, got 'x'\."),
        ({"cells": {1: {}}, "published": {"accuracy": {1: 5}}}, r"accuracy: a cell must be text, got 1\."),
        ({"cells": {1: {}}, "not_run": {1: "no"}}, r"not_run: a cell must be text, got 1\."),
        ({"grid": GRID, "chosen": {"axis": ["a"], "by": "nll"}}, r"chosen: axis must be text, got \['a'\]\."),
        ({"grid": GRID, "chosen": {"axis": "lr", "by": "nll", "among": [[1], "b"]}}, r"chosen names \[1\], which is"),
        ({"grid": GRID, "checkpoint": "first"}, r"checkpoint must be last or best, got first\."),
        ({"grid": GRID, "cells": {"BBB, lr 1": {}}}, r"there are two cells called BBB, lr 1\."),
        ({"grid": GRID, "published": {"accuracy": {"BBB": 1}}}, r"published names BBB, which is no cell\."),
        (
            {"grid": GRID, "claims": [{"says": "", "higher": {"method": "X"}, "than": {"method": "LRT"}}]},
            r"is about {'method'",
        ),
    ],
)
def test_a_file_that_is_none_is_refused_in_a_sentence(write, settings, message):
    with pytest.raises(UsageError, match=rf"^study .*tiny\.yaml: .*{message}"):
        Study.read(write(**settings))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_no_cell_of_our_studies_would_be_refused(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert study([str(path), "--dry_run"]) == 0
    assert re.search("bnn (fit|simulate) --config ", capsys.readouterr().out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cells: {a: &flags {x: *flags}}", r": it must have an end, got an anchor in line 3 with its own alias inside"),
        ("cells: &all {a: {}, <<: *all}", r": it must have an end, got an anchor in line 3 with its own alias inside"),
        (
            "cells: {a: {x: !!set {b, c}}}",
            r" cannot be read: values must be texts, numbers, lists or mappings, got one of",
        ),
        (f"cells: {{a: {{x: {'9' * 5000}}}}}", r" cannot be read: Exceeds the limit \(4300 digits\)"),
    ],
)
def test_yaml_that_no_command_line_can_say_is_refused(write, text, message):
    path = write()
    path.write_text(f"title: T\nbase: base.yaml\n{text}\n")
    with pytest.raises(UsageError, match=rf"^study .*tiny\.yaml{message}"):
        Study.read(path)


def test_a_date_is_text_and_keys_may_be_texts_and_numbers(write, tmp_path):
    path = write()
    path.write_text("title: T\nbase: base.yaml\ncells: {a: {data.root: 2026-11-28, data.weights: {1: 2, b: 3}}}\n")
    (tmp_path / "base.yaml").write_text("name: 2026-11-28\ndata: {weights: {1: 2, b: 3}}\n")
    task = Study.read(path).tasks()[0]
    assert """--data.root 2026-11-28 --data.weights '{"1": 2, "b": 3}' """ in task.command


def test_the_names_of_settings_have_not_changed(write, tmp_path):
    """Rows of earlier releases are found by these digests, which are those of JSON with sorted keys."""
    path = write(cells={"a": {"z": {10: [1, None], 9: 0.5}, "b": True}})
    (tmp_path / "base.yaml").write_text("model: {network: LeNet, method: null}\ndata: MNIST\n")
    assert Study.read(path).tasks()[0].settings == "1636af15"


def bnn_study(words):
    return main(["study", *words], {"study": "bnn_lightning.studies.command:study"})


def test_files_that_cannot_be_read(tmp_path, capsys):
    assert bnn_study([str(tmp_path / "none.yaml")]) == 2
    assert capsys.readouterr().err.endswith("none.yaml cannot be read: No such file or directory.\n")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    assert bnn_study([str(tmp_path / "list.yaml")]) == 2
    assert "list.yaml: it must be settings by name, got [1, 2]." in capsys.readouterr().err
    (tmp_path / "twice.yaml").write_text("title: T\nbase: b.yaml\ncells:\n  a: {x: 1}\n  a: {x: 2}\n")
    assert bnn_study([str(tmp_path / "twice.yaml")]) == 2
    assert "twice.yaml: it must have each key once, got the key a in lines 4 and 5; put what" in capsys.readouterr().err
    (tmp_path / "base.yaml").write_text("a: [1")
    (tmp_path / "based.yaml").write_text("title: T\nbase: base.yaml\ncells: {a: {}}")
    assert bnn_study([str(tmp_path / "based.yaml"), "--dry_run"]) == 2
    assert "base.yaml cannot be read: while parsing" in capsys.readouterr().err
    assert bnn_study([]) == 2
    assert "bnn study --help" in capsys.readouterr().err


def test_a_dry_run_prints_the_commands_and_leaves_nothing(write, capsys, tmp_path):
    path = write(grid=GRID, not_run={"CIFAR-100": "no data"})
    before = sorted(tmp_path.iterdir())
    assert study([str(path), "--dry_run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7
    assert lines[5].startswith("[6] bnn fit --config base.yaml --model.method LRT --model.lr 1 --seed_everything 3")
    assert lines[6] == "not run: CIFAR-100: no data"
    assert study([str(path), "--dry_run", "--only", "BBB*"]) == 0
    assert capsys.readouterr().out.count("bnn fit") == 2
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("axis", ["data.seed", "model.settings", "model.seconds"])
def test_an_axis_may_be_called_as_a_column_is(write, pretended, axis):
    path = write(grid={axis: [3, 4], "data.x.p": [1], "model.p": [2]})
    assert Study.read(path).axes == [axis, "data.x.p", "model.p"]
    assert study([str(path)]) == 0
    assert study([str(path)]) == 0
    assert len(pretended) == 2
    recorded = rows.read(Path("results/tiny.csv"))
    assert [(row[axis], row["seed"]) for row in recorded] == [(f"{axis} 3", "0"), (f"{axis} 4", "0")]
