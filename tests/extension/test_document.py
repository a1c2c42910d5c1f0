"""docs/extending.md shows the files of this package, and its commands and blocks run."""

import re
import shlex

import pytest

from bnn_lightning.cli import main
from tests.helpers import ON_THE_COMMAND_LINE, ROOT, printed

pytestmark = ON_THE_COMMAND_LINE
DOCUMENT = (ROOT / "docs" / "extending.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
COMMANDS = [command for command in re.findall(r"```\n(bnn .*)\n```", DOCUMENT) if command.startswith("bnn fit")]
FILES = sorted(path.name for path in (ROOT / "tests" / "extension").glob("*.py") if "test_" not in path.name)


@pytest.mark.parametrize("name", [name for name in FILES if name != "__init__.py"])
def test_the_document_shows_every_file_as_it_is(name):
    assert (ROOT / "tests" / "extension" / name).read_text() in BLOCKS


def test_the_block_without_the_command_line_runs(capsys):
    exec(compile(BLOCKS[-1], "extending.md", "exec"), {})
    lines = printed(capsys).splitlines()
    assert lines[1].split() == ["conv1", "Conv2d", "LRT", "156", "0"]
    assert lines[-1].split() == ["all", "61,706", "0"]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split("mypackage.")[1].split(".")[0])
def test_commands_run(command):
    words = shlex.split(command.replace("mypackage", "tests.extension"))[1:]
    words = [str(ROOT / "configs" / word) if word.endswith(".yaml") else word for word in words]
    data = [] if "--data" in words else ["--data", "MNIST5k"]
    assert main([*words, *data, "--trainer.fast_dev_run", "true"]) == 0
