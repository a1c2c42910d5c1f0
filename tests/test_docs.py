"""The README is a program: its Python blocks run, its commands parse, its links lead somewhere."""

import csv
import re
import shlex
import sys

import choosing
import fault_campaign
import pytest
import seeds
import speed
import uncertainty

import results
from bnn_lightning import sample_logits
from bnn_lightning.__main__ import PROGRAMS
from bnn_lightning.cli.entry import first_error, verbs
from bnn_lightning.studies import rows
from bnn_lightning.studies.base import Study
from bnn_lightning.studies.chosen import chosen_table
from bnn_lightning.studies.report import report
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text()
TOP = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
DOCUMENTS = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
PARTS = ["README.md", "docs/methods.md", "docs/shrinking.md", "docs/python.md"]  # a newcomer begins with these


def blocks(language):
    return [
        block
        for part in PARTS
        for block in re.findall(rf"```{language}\n(.*?)```", (ROOT / part).read_text(), re.DOTALL)
    ]


def commands():
    """The words of each ``bnn`` command, with the checkpoint that comes with the package in place of others."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    for line in lines:
        if line.startswith("bnn "):
            words = shlex.split(line, comments=True)[1:]
            yield ["lenet_ivon_mnist" if word.startswith("checkpoints/") else word for word in words]


@pytest.mark.slow
def test_python_blocks_of_the_readme_run():
    names = {}
    for block in blocks("python"):
        own = {}  # each can be copied alone
        exec(compile(block, "README.md", "exec"), own)
        names |= own
    assert names["probabilities"].shape == (500, 10)
    assert names["probabilities"].sum(-1).allclose(names["probabilities"].new_ones(500))
    accuracy = (names["probabilities"].argmax(-1) == names["labels"]).float().mean()
    assert accuracy > 0.5  # of 0.1 by chance, after one pass over 3,200 images
    assert names["logits"].shape == (2, 10)


@pytest.mark.slow
def test_the_plain_loop_of_ivon_learns():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "inference.md").read_text(), re.DOTALL)
    names = {}
    exec(compile(block, "inference.md", "exec"), names)
    images, labels = next(iter(names["data"].test_dataloader()))
    predicted = sample_logits(names["net"], images, 5).softmax(-1).mean(0).argmax(-1)
    assert (predicted == labels).float().mean() > 0.5


@pytest.mark.filterwarnings("ignore")
def test_the_small_network_works_by_its_class_path(tmp_path, monkeypatch):
    from bnn_lightning.cli import main

    block = next(block for block in blocks("python") if "class SmallNet" in block)
    (tmp_path / "mynet.py").write_text(block)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    command = next(line for line in README.splitlines() if "mynet.SmallNet" in line)
    words = command.split("bnn ")[1].split()
    assert main([*words, "--trainer.fast_dev_run", "true"]) == 0
    sys.modules.pop("mynet")


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_are_understood(words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("BNN_DATA", str(tmp_path))
    if words[0] in verbs() and "--help" not in words and "mynet.SmallNet" not in words:
        assert first_error(words) == ""
    else:
        assert words[0] in {*verbs(), *PROGRAMS}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize(
    ("benchmark", "rows", "documents"),
    [
        (uncertainty, "uncertainty.csv", ["docs/measurements.md"]),
        (seeds, "seeds.csv", ["docs/running.md"]),
        (fault_campaign, "fault_campaign.csv", ["docs/running.md"]),
        (speed, "speed.json", ["docs/performance.md", "README.md"]),
        (choosing, "methods.csv", ["docs/choosing.md"]),
    ],
)
def test_tables_are_those_of_the_measured_rows(benchmark, rows, documents, capsys):
    benchmark.table(ROOT / "results" / rows)
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(lines) > 5
    written = [line for document in documents for line in (ROOT / document).read_text().splitlines()]
    for line in lines:
        assert line in written


def test_results_are_those_of_the_rows_and_of_all_studies():
    assert (ROOT / "docs" / "results.md").read_text() == results.document()
    assert sorted(results.STUDIES) == sorted(path.stem for path in (ROOT / "configs" / "studies").glob("*.yaml"))


@pytest.mark.parametrize("name", results.STUDIES)
def test_rows_are_of_the_settings_that_their_study_has_now(name):
    study, file = Study.read(str(ROOT / "configs" / "studies" / f"{name}.yaml")), ROOT / "results" / f"{name}.csv"
    known = {task.key for task in study.tasks()}
    assert [row for row in (rows.read(file) if file.exists() else []) if rows.key_of(study, row) not in known] == []


def test_the_table_of_regression_is_that_of_its_study():
    study = Study.read(ROOT / "configs" / "studies" / "uci.yaml")
    head, *rows, verdicts = chosen_table(study, report(study, ROOT / "results")[1])
    document = (ROOT / "docs" / "regression.md").read_text()
    for row in rows:
        cells = {name.removesuffix(" ± standard error"): cell for name, cell in zip(head, row, strict=True)}
        line = next(line for line in document.splitlines() if line.startswith(f"| {cells['table']} | "))
        said = [float(number) for number in re.findall(r"-?\d+\.\d+", line)]
        covered = [cells[f"coverage of {which}90 % intervals, %"].split(" ± ")[0] for which in ("", "conformal ")]
        published = [cells[name] for name in cells if name.startswith("NLL, ")]
        measured = [*cells["NLL"].split(" ± "), *published, cells["RMSE"].split(" ± ")[0], *covered]
        # The last digit of each is rounded there, and has been rounded here.
        for number, value, digits in zip(said, map(float, measured), (3, 3, 2, 2, 2, 2, 1, 1), strict=True):
            assert abs(number - value) <= 0.501 * 10**-digits + 5e-5
    assert [text for text in verdicts if text] == ["better in 9 of 9", "better in 7 of 9", "better in 5 of 9"]


def test_the_map_of_methods_takes_what_its_search_has_found():
    search, chart = (
        Study.read(ROOT / "configs" / "studies" / f"{name}.yaml") for name in ("methods_search", "methods")
    )
    rows = csv.DictReader((ROOT / "results" / "methods_search.csv").read_text().splitlines())
    nll = {row["setting"]: float(row["val_nll"]) for row in rows}
    settings = {cell.name: cell.flags for cell in search.all_cells()}
    assert nll.keys() == settings.keys()
    best = {}
    for name in sorted(nll, key=nll.__getitem__):
        best.setdefault(name.partition("; ")[0], name)
    assert all(sum(name.startswith(f"{method}; ") for name in nll) == 4 for method in best)
    cells = {name: [cell for cell in chart.all_cells() if cell.axes["method"] == name] for name in best}
    for method, setting in best.items():
        own = settings[setting].items() - search.set.items()
        assert cells[method]
        assert all(own <= cell.flags.items() for cell in cells[method])
    joined = {cell.axes["method"] for cell in chart.all_cells() if cell.members == 5}
    assert joined == {f"five of {method}" for method in list(best)[:3]}


def test_the_study_file_that_is_described_is_one(tmp_path):
    example, search = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "studies.md").read_text(), re.DOTALL)
    (tmp_path / "lenet_lrt.yaml").touch()
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "one.yaml").write_text(example)
    assert len(Study.read(folder / "one.yaml").tasks()) == 2 * 3 + 2 * 1 + 2 * 1 + 3
    (folder / "two.yaml").write_text(f"title: A search\nbase: ../lenet_lrt.yaml\n{search}")
    assert Study.read(folder / "two.yaml").trials == 30
