"""Help: short, and there without a checkpoint."""

import pytest

from bnn_lightning.cli import main
from tests.helpers import ON_THE_COMMAND_LINE

pytestmark = ON_THE_COMMAND_LINE


def test_help_is_short(capsys):
    for verb in ("fit", "test"):
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
        text = capsys.readouterr().out
        assert len(text.splitlines()) < 80
        assert "--model.test_samples" in text
        assert "MNIST5k" in text


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
