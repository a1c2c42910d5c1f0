"""``bnn acquire``: a ranked table, what is copied, refusals, and a loop on one's own folder."""

import errno
import os
import re
import shlex
import shutil
from functools import cache
from pathlib import Path

import pytest
import torch
from PIL import Image

from bnn_lightning.checkpoints.record import Record
from bnn_lightning.cli import main
from bnn_lightning.cli.chosen import check_classes, laid_out
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.data import MNIST5k
from bnn_lightning.files import UnwritableError
from bnn_lightning.preprocessing.pictures import walk
from tests.helpers import ON_THE_COMMAND_LINE, ROOT, printed, table

pytestmark = ON_THE_COMMAND_LINE
LRT = str(ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
LOGS = Path("lightning_logs/lenet_lrt_mnist/version_0")


@cache
def digits():
    return MNIST5k().load_test()


@pytest.fixture
def pool():
    """Forty digits lying on their sides, which the network is unsure of, each twice, and a file that is no picture."""
    images = digits()
    for index in range(40):
        for folder in ("one", "two"):
            Path("pool", folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(images.pixels[index, 0].rot90().numpy()).save(f"pool/{folder}/{index:02d}.png")
    for broken in ("pool/broken.png", "damaged/broken.png"):
        Path(broken).parent.mkdir(exist_ok=True)
        Path(broken).write_bytes(b"nothing")
    return images.labels[:40].tolist()


def acquire(*words):
    return main(["acquire", "--ckpt_path", LRT, "--data", "ImageFolder", "--data.root", "pool", *words])


def test_a_ranked_table_names_what_to_label_and_why(pool, capsys):
    assert acquire("--count", "6", "--to", "chosen") == 0
    rows = table(LOGS / "acquired.csv")
    assert len(rows) == 81
    assert [row["rank"] for row in rows[:80]] == [str(rank) for rank in range(1, 81)]
    assert [row["chosen"] for row in rows[:80]] == ["yes"] * 6 + ["no"] * 74
    joint = [float(row["joint"]) for row in rows[:6]]
    assert joint == sorted(joint)
    assert float(rows[0]["score"]) == pytest.approx(joint[0], abs=1e-6)
    assert rows[1]["reason"].startswith(f"its label adds {joint[1] - joint[0]:.3f} nats")
    scores = [float(row["score"]) for row in rows[6:80]]
    assert scores == sorted(scores, reverse=True)
    assert (rows[80]["file"], rows[80]["rank"]) == ("pool/broken.png", "")
    assert "cannot identify image file" in rows[80]["error"]
    # Nothing is bought twice, and the copies of what was chosen are said to be as uncertain.
    names = [Path(row["file"]).name for row in rows[:6]]
    assert len(set(names)) == 6
    copy = next(row for row in rows[6:80] if Path(row["file"]).name == names[0])
    assert "but the chosen ones say most of that" in copy["reason"]
    for row in rows[:6]:
        assert (Path("chosen") / row["placed"]).read_bytes() == Path(row["file"]).read_bytes()
        assert row["placed"].startswith(row["predicted"])
    with Image.open(LOGS / "acquired.png") as sheet:
        pixels = torch.tensor(list(sheet.convert("L").resize((60, 30)).getdata()))
    assert (pixels < 128).float().mean() > 0.2  # the digits are black squares; an empty sheet is white
    page = (LOGS / "acquired.html").read_text()
    assert page.count("data:image/png;base64,") == 6
    assert "http" not in page
    assert "6 of 80 chosen by batchbald" in printed(capsys)


def test_bald_buys_both_copies_and_links_are_made(pool):
    assert acquire("--count", "4", "--by", "bald", "--to", "chosen", "--link", "true") == 0
    rows = table(LOGS / "acquired.csv")
    assert len({Path(row["file"]).name for row in rows[:4]}) == 2
    assert "joint" not in rows[0]
    links = sorted(Path("chosen").rglob("*.png"))
    assert len(links) == 4
    assert all(
        link.is_symlink() and os.path.samefile(link, Path("pool") / link.resolve().relative_to(Path("pool").resolve()))
        for link in links
    )


def test_a_name_is_that_of_one_picture_in_every_round():
    for folder in ("a", "b"):
        Path("pool", folder).mkdir(parents=True)
        Path("pool", folder, "x.png").write_text(folder)
    Path("pool", "y.png").write_text("y")
    pictures = walk(Path("pool")).pictures
    alone = [laid_out([picture], ["cat"], Path(f"round_{number}"), True) for number, picture in enumerate(pictures)]
    together = laid_out(pictures, ["cat"] * 3, Path("all"), False)
    assert [[place] for place in together] == alone
    assert len(set(together)) == 3
    assert together[2] == "cat/y.png"
    # What is there is neither replaced nor written through a link.
    with pytest.raises(UnwritableError, match=r"^round_0/cat/x-.*\.png cannot be written: another file is called so"):
        laid_out(pictures[:1], ["cat"], Path("round_0"), False)
    assert Path("pool/a/x.png").read_text() == "a"


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        (["cat", "n/a"], "--to needs classes that can be names of folders, got n/a; without --to, a table for "),
        (["", "cat"], "--to needs classes that can be names of folders, got ; "),
        (["a cat."], r"--to needs classes that can be names of folders, got a cat\.; "),
        ([".cat"], r"--to needs classes that can be names of folders, got \.cat; "),
        (["Cat", "dog", "cat"], "--to needs classes that differ by more than case, got Cat and cat; without --to, a "),
    ],
)
def test_classes_that_folders_would_rename_or_merge(classes, sentence):
    with pytest.raises(UsageError, match=f"^{sentence}"):
        check_classes(classes)


def test_such_classes_are_refused_before_anything_is_scored(pool, capsys):
    checkpoint = torch.load(LRT, weights_only=True)
    checkpoint["bnn_lightning"]["data"]["class_names"] = ["n/a", *"123456789"]
    torch.save(checkpoint, "renamed.ckpt")
    words = ["--data", "ImageFolder", "--data.root", "pool", "--count", "2"]
    assert main(["acquire", "--ckpt_path", "renamed.ckpt", *words, "--to", "chosen"]) == 2
    assert "--to needs classes that can be names of folders, got n/a; " in printed(capsys)
    assert not Path("chosen").exists()
    assert not list(Path().rglob("acquired*"))
    assert main(["acquire", "--ckpt_path", "renamed.ckpt", *words]) == 0


@pytest.mark.parametrize("by", ["epig", "entropy", "variation_ratio", "random"])
def test_every_rule_gives_its_reason(pool, capsys, by):
    assert acquire("--count", "100", "--by", by) == 0
    rows = table(LOGS / "acquired.csv")[:80]
    assert [row["chosen"] for row in rows] == ["yes"] * 80
    assert all(row["reason"] for row in rows)
    assert "The pool has 80 images, so that all were chosen." in printed(capsys)


def test_the_choice_does_not_depend_on_the_batches(pool):
    assert acquire("--count", "5") == 0
    assert acquire("--count", "5", "--data.eval_batch_size", "7") == 0
    first, second = (table(LOGS / f"{name}.csv")[:80] for name in ("acquired", "acquired_1"))
    assert [float(row["joint"]) for row in first[:5]] == pytest.approx(
        [float(row["joint"]) for row in second[:5]], abs=1e-4
    )


def test_epig_asks_about_the_pictures_of_another_folder(pool):
    Path("asked").mkdir()
    shutil.copy("pool/one/03.png", "asked")
    assert acquire("--count", "1", "--by", "epig", "--targets", "asked") == 0
    alone = float(table(LOGS / "acquired.csv")[0]["score"])
    assert acquire("--count", "1", "--by", "epig") == 0
    assert alone != float(table(LOGS / "acquired_1.csv")[0]["score"])


def test_the_sheet_of_a_large_choice_has_the_first(pool, monkeypatch):
    monkeypatch.setattr("bnn_lightning.cli.verbs.acquire._SHOWN", 3)
    assert acquire("--count", "80", "--by", "entropy") == 0
    page = (LOGS / "acquired.html").read_text("utf-8")
    assert page.count("<img") == 3
    assert "80 images to label" in page
    assert "The first 3, the best first." in page


def test_outputs_that_outgrow_the_disk_are_refused(pool, monkeypatch, capsys):
    monkeypatch.setattr("bnn_lightning.evaluation.pool._MAX_BYTES", 0)

    def full(descriptor, start, size):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    assert acquire("--count", "6") == 2
    assert " cannot be written: No space left on device; outputs take " in printed(capsys)


def test_labels_that_are_numbers_have_no_rule(capsys):
    Path("table.csv").write_text("a,b\n" + "\n".join(f"{n},{n * n % 7}" for n in range(60)))
    words = ["--model.network", "TabularMLP", "--model.likelihood", "Gaussian", "--trainer.max_epochs", "1"]
    assert main(["fit", "--data", "Table", "--data.path", "table.csv", *words, "--name", "numbers"]) == 0
    assert main(["acquire", "--ckpt_path", "checkpoints/numbers/version_0/last.ckpt"]) == 2
    assert "--ckpt_path must be of a network of classes; no rule is known for labels that are numbers." in printed(
        capsys
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--count", "0"], "--count must be 1 or more, got 0."),
        (["--to", "pool/new"], "--to must lie outside of the pool pool, whose pictures would be there twice"),
        (["--to", "pool/broken.png"], "--to must be a folder, got the file"),
        (["--link", "true"], "--link needs --to"),
        (["--targets", "pool"], "--targets is for --by epig, got batchbald."),
        (["--model.sampling.draws", "local"], "--by batchbald needs the same draws for every image"),
        (
            ["--by", "epig", "--model.sampling.draws", "moments"],
            "--by epig needs the same draws for every image, got moments, which are of each by itself; "
            "--model.sampling.draws null draws.",
        ),
        (["--model.sampling.draws", "mean"], "for one network that draws nothing, got batchbald"),
        (["--data.root", "nowhere"], "ImageFolder found no pictures"),
        (["--data.root", "damaged"], "--data must have images that can be read, got none among 1 file."),
        (
            ["--by", "epig", "--targets", "damaged"],
            "--targets must have images that can be read, got none among 1 file.",
        ),
        (["--by", "margin"], "--by must be one of"),
    ],
)
def test_what_is_refused(pool, capsys, words, sentence):
    assert acquire(*words) == 2
    assert sentence in printed(capsys)
    assert not list(Path("lightning_logs").rglob("acquired*"))


def test_a_loop_on_ones_own_folder(pool, capsys):
    """Twenty labels, fit, acquire among the rest, five more labels, fit from the last weights."""
    shutil.rmtree("pool/two")
    # Dropout on linear layers alone: the convolutions are not drawn, and must be the checkpoint's all the same.
    rows = [f"one/{index:02d}.png,{label}" for index, label in enumerate(pool)]

    def labels(count):
        Path("labels.csv").write_text("\n".join(["file,class", *rows[:count]]))

    data = ["--data", "ImageFolder", "--data.root", "pool", "--data.labels", "labels.csv", "--data.val_split", "0"]
    dropout = ["--model.method", "MCDropout", "--model.method.shared", "true", "--model.only", "fc*"]
    fit = ["fit", "--model.network", "LeNet", *dropout, "--trainer.max_epochs", "20", *data]
    labels(20)
    assert main([*fit, "--name", "first"]) == 0
    first = "checkpoints/first/version_0/last.ckpt"
    words = ["acquire", "--ckpt_path", first, "--count", "5", "--by", "entropy", *data[:6]]
    assert main(words) == 0
    ranked = table(Path("lightning_logs/first/version_0/acquired.csv"))
    files = [row["file"] for row in ranked if row["rank"]]
    assert sorted(files) == [f"pool/one/{index:02d}.png" for index in range(20, 40)]
    # The checkpoint's own pictures that have no class yet are what is chosen from without --data, too.
    assert main([*words[:-6]]) == 0
    again = table(Path("lightning_logs/first/version_0/acquired_1.csv"))
    assert [row["file"] for row in again if row["rank"]] == [row["file"] for row in ranked if row["rank"]]
    assert main(["predict", "--ckpt_path", first, *data[:4]]) == 0
    predicted = {row["file"]: row for row in table(Path("lightning_logs/first/version_0/predictions.csv"))}
    for row in ranked[:20]:
        assert float(row["entropy"]) == pytest.approx(float(predicted[row["file"]]["entropy"]), abs=1e-4)
    # What was chosen is sorted by hand, and joins the labels that there were.
    capsys.readouterr()
    assert main([*words, "--to", "round 1"]) == 0
    assert """train with --data.labels '["labels.csv", "round 1"]'.""" in printed(capsys)
    for row in table(Path("lightning_logs/first/version_0/acquired_2.csv"))[:5]:
        place = Path("round 1") / row["placed"]
        right = Path("round 1", str(pool[int(Path(row["file"]).stem)]))
        right.mkdir(exist_ok=True)
        place.rename(right / place.name)
    fit[fit.index("labels.csv")] = '["labels.csv", "round 1"]'
    assert main([*fit, "--name", "second", "--model.init_from", first]) == 0
    second = "checkpoints/second/version_0/last.ckpt"
    assert main(["acquire", "--ckpt_path", second, "--count", "1", "--by", "random"]) == 0
    left = [row["file"] for row in table(Path("lightning_logs/second/version_0/acquired.csv")) if row["rank"]]
    assert sorted(left) == sorted(set(files) - {row["file"] for row in ranked[:5]})
    assert main(["test", "--ckpt_path", second]) == 0
    names = [Record.read(f"checkpoints/{name}/version_0/last.ckpt").data["class_names"] for name in ("first", "second")]
    assert names[0] == names[1] == sorted({str(label) for label in pool[:20]})


def test_the_commands_of_the_page_are_a_loop(pool):
    """As they stand in the documents, but for the epochs, with forty labels to begin with."""
    page = (ROOT / "docs" / "acquisition.md").read_text()
    block = re.search(r"```bash\n(bnn fit .*?)```", page, re.DOTALL)[1].replace("\\\n", " ")
    Path("pool").rename("pictures")
    for index in range(40):  # other digits: what is chosen is sorted by the network's guess, also where it is wrong
        Image.fromarray(digits().pixels[40 + index, 0].numpy()).save(f"pictures/two/{index:02d}.png")
    Path("labels.csv").write_text(
        "\n".join(["file,class", *(f"one/{index:02d}.png,{label}" for index, label in enumerate(pool))])
    )
    for line in block.splitlines():
        if words := shlex.split(line, comments=True)[1:]:
            assert main([{"300": "3"}.get(word, word) for word in words]) == 0
    assert [len(list(Path(f"round_{number}").rglob("*.png"))) for number in (1, 2)] == [20, 20]
    assert len({path.name for path in Path().glob("round_*/*/*.png")}) == 40
