"""``bnn demo`` and ``bnn completion``."""

import subprocess
from pathlib import Path
from shutil import which

import pytest

from bnn_lightning.__main__ import PROGRAMS
from bnn_lightning.cli import main
from bnn_lightning.cli.completion import script
from bnn_lightning.cli.demo import _what_formed
from bnn_lightning.cli.entry import help_page
from tests.helpers import LENET, ON_THE_COMMAND_LINE, ROOT, SMALL

pytestmark = ON_THE_COMMAND_LINE


@pytest.mark.slow
def test_the_demo_says_what_formed_and_ends_with_a_report(monkeypatch, capsys):
    quick = ["--config", LENET, *SMALL, "--trainer.max_epochs", "1", "--data.batch_size", "64"]
    monkeypatch.setattr("bnn_lightning.cli.demo._LARGE", quick)
    monkeypatch.setattr("bnn_lightning.cli.demo._SMALL", [*quick, "--trainer.max_epochs", "2"])
    assert main(["demo"], PROGRAMS) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert len(lines) < 40  # of 80 columns
    assert sum(line.startswith("   epoch ") for line in lines) == 1 + 2
    said = " ".join(captured.out.split())  # without the ends of lines
    assert said.count("but its posterior has not formed") == 2  # of 480 images neither has
    report = next(line.strip() for line in lines if line.strip().startswith("file://"))
    assert Path(report.removeprefix("file://")).is_file()
    page = Path("lightning_logs/demo/version_0/report.html").read_text()
    assert "The same digits were given to a large network first." in page
    assert "RenderedLetters" in page
    assert main(["demo", "--fast"], PROGRAMS) == 2


def test_a_posterior_that_has_formed_is_called_so():
    said = _what_formed("LeNet", ROOT / "checkpoints" / "lenet_lrt_mnist.ckpt")
    assert "and its posterior has formed: elbo/N -0." in said


@pytest.mark.slow
@pytest.mark.skipif(which("bash") is None, reason="bash is not installed")
def test_bash_completes_verbs_flags_and_names():
    Path("bnn.bash").write_text(script("bash", PROGRAMS))
    lines = {
        "bnn pre": "predict",
        "bnn fit --config lenet_l": "lenet_laplace lenet_lrt",
        "bnn fit --model.network Le": "LeNet LeNet300100 LeNet5Caffe",
        "bnn test --ckpt_path lenet_lrt": "lenet_lrt_mnist",
        "bnn test --rep": "--report",
        "bnn study twi": "twins",
        "bnn test --print_s": "",
    }
    Path("try.bash").write_text(
        'source ./bnn.bash\ncomplete_it() { COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=();\n'
        '_shtab_bnn bnn "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"; echo "${COMPREPLY[*]}"; }\n'
        + "".join(f"complete_it {line}\n" for line in lines)
    )
    result = subprocess.run(["bash", "try.bash"], capture_output=True, text=True)
    assert result.stderr == ""
    assert result.stdout.split("\n")[:-1] == list(lines.values())


def test_help_names_the_programs():
    page = help_page(PROGRAMS)
    for name in (*PROGRAMS, "completion"):
        assert f"\n  {name} " in page
    assert main(["completion", "csh"], PROGRAMS) == 2
