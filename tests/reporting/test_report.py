"""The page of ``bnn test --report``: whole in itself, with every user's text escaped, and with commands that work."""

import html
import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

from bnn_lightning.cli import first_error, main
from bnn_lightning.reporting.caveats import explained
from bnn_lightning.reporting.contact_sheet import write_contact_sheet
from tests.helpers import ON_THE_COMMAND_LINE, printed

pytestmark = ON_THE_COMMAND_LINE


def check_whole(page):
    """Nothing is fetched, and nothing but our own style is in the page."""
    assert not re.search(r"https?://|<script|<link|@import|url\(", page)
    assert all(address.startswith("data:image/png;base64,") for address in re.findall(r'src="([^"]*)', page))


def commands(page):
    return [html.unescape(text) for text in re.findall(r"<pre>(.*?)</pre>", page)]


@pytest.mark.slow
def test_the_report_of_classes_escapes_names_and_its_commands_work(capsys):
    names = ["<i>cat", "dog & co"]
    for label, name in enumerate(names):
        folder = Path("photos", name)
        folder.mkdir(parents=True)
        for number in range(12):
            Image.new("L", (32, 32), 150 * label + number).save(folder / f"{number}.png")
    data = ["--data", "ImageFolder", "--data.root", "photos", "--data.batch_size", "8", "--trainer.max_epochs", "1"]
    assert main(["fit", "--model.network", "LeNet", "--model.method", "LRT", *data, "--name", "a"]) == 0
    best = "checkpoints/a/version_0/best.ckpt"
    words = ["--data.ood", "[RenderedLetters]", "--report", "--remark", "<b>mine</b>"]
    assert main(["test", "--ckpt_path", best, *words]) == 0
    assert "Report: lightning_logs/a/version_0/report.html" in printed(capsys)
    page = Path("lightning_logs/a/version_0/report.html").read_text()
    check_whole(page)
    assert "&lt;i&gt;cat" in page
    assert "<i>cat" not in page
    assert "&lt;b&gt;mine" in page
    assert "<h1>LeNet, LRT on photos</h1>" in page
    # All test images, 12 letters, and the figures but for that of the most and least certain images.
    results = json.loads(Path("lightning_logs/a/version_0/test_imagefolder_best.json").read_text())
    assert page.count("data:image/png") == results["images"] + 12 + 6
    assert "posterior not converged" in page
    assert "What helps:" in page
    assert len(commands(page)) >= 4
    for command in commands(page):
        program, *rest = shlex.split(command.replace("FOLDER", "photos"))
        assert program == "bnn"
        if rest[0] != "serve":
            assert first_error(rest) == "", command
    assert main(["test", "--ckpt_path", best]) == 0
    assert "Report:" not in printed(capsys)


def test_every_caveat_is_explained():
    known = [
        "posterior not converged", "tempered", "elbo/N is no bound", "not learning", "not calibrated",
        "calibrated with 25 samples", "temperature from only 400 images", "temperature at its bound 20",
        "scale at its bound 20", "calibrated on only 30 examples",
        "tested on only 3 examples", "ECE of only 100 images: about 0.02 even if calibrated",
        "no images of 2 of 10 classes (3; 4)", "not shown to be more accurate than always 3 (10.0 % of the images)",
        "balanced accuracy not shown to be better than guessing (10.0 %)",
        "class weights: loss is no ELBO", "label smoothing", "cats not shown to be told from the test images",
        "letters rendered from fonts, not notMNIST",
    ]  # fmt: skip
    for caveat in known:
        assert explained(caveat).meaning, caveat
        assert explained(caveat).caveat == caveat
    # What has not converged under IVON is not told to use IVON.
    assert "--model.inference IVON" in explained("posterior not converged").cure
    assert "--model" not in explained("posterior not converged", "IVON").cure
    assert explained("a note of somebody's data") == ("a note of somebody's data", "", "")


def test_the_sheet_of_chosen_images_escapes_names():
    row = {"rank": 1, "file": '"><script>', "predicted": "<i>", "confidence": 0.5, "reason": "it & <others>"}
    write_contact_sheet(Path("sheet.html"), [torch.zeros(1, 8, 8, dtype=torch.uint8)], [row], "<t>", "<about>")
    page = Path("sheet.html").read_text()
    check_whole(page)
    for text in ("<t>", "<i>", "<about>", "<others>"):
        assert text not in page
        assert html.escape(text) in page
