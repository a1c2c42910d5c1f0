"""Help: short, fast, and there without a checkpoint."""

import subprocess
import sys

import pytest

import bnn_lightning
from bnn_lightning.__main__ import main as bnn
from bnn_lightning.cli import main
from bnn_lightning.cli.entry import verbs
from bnn_lightning.cli.names import PARTS, names_of
from tests.helpers import ON_THE_COMMAND_LINE

pytestmark = ON_THE_COMMAND_LINE


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
@pytest.mark.parametrize("columns", [80, 120])
def test_the_first_page_has_every_verb_with_the_first_line_of_its_file(words, columns, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bnn", *words])
    monkeypatch.setenv("COLUMNS", str(columns))
    assert bnn() == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert lines[0] == "usage: bnn VERB [options]"
    shown = [line.split()[0] for line in lines[5:] if line.startswith("  ") and not line.startswith("   ")]
    assert shown[:-3] == sorted([*verbs(), "completion", "configs", "demo", "serve", "study"])
    assert max(map(len, lines)) <= columns
    assert "\n  test        Measure a checkpoint on test images.\n" in text
    assert "\n  study       Run a grid of runs, " in text


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bnn_lightning {bnn_lightning.__version__}\n"


@pytest.mark.parametrize(("word", "code"), [("--help", 0), ("--version", 0), ("tset", 2)])
def test_what_needs_no_verb_loads_only_the_standard_library(word, code):
    heavy = {"torch", "lightning", "jsonargparse", "torchvision", "matplotlib", "rich", "yaml", "optuna", "numpy"}
    heavy |= {"litserve", "starlette", "uvicorn"}
    program = (
        "import sys\nfrom bnn_lightning.__main__ import main\n"
        f"sys.argv = ['bnn', {word!r}]\nassert main() == {code}\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(eval(result.stderr.splitlines()[-1]))
    assert "bnn_lightning" in loaded
    assert loaded & heavy == set()


def test_help_is_short(capsys):
    for verb in ("fit", "test"):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        text = capsys.readouterr().out
        assert len(text.splitlines()) < 80
        assert "--model.sampling.test_samples" in text
        assert "MNIST5k" in text


def helped(capsys, *words):
    with pytest.raises(SystemExit, match="0"):
        main(["fit", *words])
    return capsys.readouterr().out


def test_help_of_a_class_has_its_settings_and_no_noise(capsys):
    # The parser that shows it is made inside jsonargparse: another release may make it in another way.
    text = helped(capsys, "--model.method.help", "LRT")
    first, _, what, _, title, *_ = text.splitlines()
    assert first == "usage: bnn VERB --model.method LRT [--model.method.SETTING VALUE] ..."
    assert what.startswith("Local reparameterisation: ")
    assert title == "Settings of LRT:"
    assert "  --model.method.prior NAME " in text
    assert "StudentTPrior" in text
    assert "(default: Gaussian)" in text
    for noise in ("Help for", "CLASS_PATH", "PRIOR_SIGMA", "bnn_lightning.", ".help"):
        assert noise not in text
    nested = helped(capsys, "--model.method.help", "LRT", "--model.method.prior.help", "ScaleMixture")
    assert nested.startswith("usage: bnn VERB --model.method.prior ScaleMixture [")
    own = helped(capsys, "--model.network.help", "tests.training.tiny_network.TinyNet")
    assert own.startswith("usage: bnn VERB --model.network tests.training.tiny_network.TinyNet [")


@pytest.mark.parametrize(
    ("key", "name", "setting"),
    [("model.inference.lr_schedule", "Cosine", "end_factor"), ("model.inference.optimizer", "SGD", "momentum")],
)
def test_help_of_a_part_of_a_part_has_whole_flags(key, name, setting, capsys):
    text = helped(capsys, f"--{key}.help", name)
    assert text.startswith(f"usage: bnn VERB --{key} {name} [--{key}.SETTING VALUE] ...\n")
    assert f"\n  --{key}.{setting} " in text


@pytest.mark.parametrize(
    "key",
    [
        *("model.method", "model.inference", "model.network", "data", "model.likelihood"),
        *("model.method.prior", "model.method.posterior", "model.inference.kl_weight"),  # of parts that are not chosen
    ],
)
def test_help_of_a_part_has_a_line_for_each_name(key, capsys):
    lines = helped(capsys, f"--{key}.help").splitlines()
    assert lines[0] == f"usage: bnn VERB --{key} NAME [--{key}.SETTING VALUE] ..."
    shown = {line.split()[0]: line for line in lines[2:-2] if not line.startswith("   ")}
    assert list(shown) == names_of(PARTS[key])
    assert all(len(line.split()) > 2 for line in shown.values())


def test_help_says_something_of_every_setting_of_images(capsys):
    text = helped(capsys, "--data.help", "MNIST")
    assert "(default: null) (default: null)" not in text
    assert main(["fit", "--data.help", "MNITS"]) == 2
    assert "--data does not know MNITS; did you mean MNIST? " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data.help", "MNIST"], "--data.batch_size"),
        (["--data.help=MNIST"], "--data.batch_size"),
        (["--print_config"], "ckpt_path: null"),
    ],
)
def test_help_needs_no_checkpoint(words, told, capsys):
    with pytest.raises(SystemExit) as left:
        main(["test", *words])
    assert left.value.code == 0
    assert told in capsys.readouterr().out
