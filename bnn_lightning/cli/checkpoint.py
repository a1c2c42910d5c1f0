"""The checkpoints that a command line names, and which of their settings go under its flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnn_lightning.checkpoints.record import CheckpointError, Record
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.shipped import names
from bnn_lightning.wording import nearest


def read_given(path: str | Path, flag: str = "--ckpt_path", to_go_on: bool = False) -> Record:
    """The checkpoint of ``bnn fit`` that ``flag`` names, by its file or its run's folder.

    Raises:
        UsageError: when the file cannot be read, or holds no config.
    """
    try:
        record = Record.read(path, to_go_on)
    except CheckpointError as error:
        raise UsageError(f"{flag}: {error}{_what_was_meant(Path(path))}") from error
    if record.config is None:
        raise UsageError(
            f"{flag} {path} was saved from Python and holds no config; load it in Python "
            "by BayesianModule.load_from_checkpoint(path, network=..., method=...)."
        )
    return record


def _what_was_meant(path: Path) -> str:
    """A sentence about a name that resembles that of another checkpoint; may be empty."""
    if path.exists():
        return ""
    if path.name == str(path) and (meant := nearest(path.stem, names("checkpoint"), cutoff=0.7)):
        return f" Did you mean {meant}, which comes with the package?"
    meant = nearest(path.name, sorted(file.name for file in path.parent.glob("*.ckpt")))
    return f" Did you mean {path.with_name(meant)}?" if meant else ""


def config_of(record: Record) -> dict[str, Any]:
    """The config of the run that wrote a checkpoint, which :func:`read_given` has looked for."""
    assert record.config is not None
    return record.config


def config_under_flags(record: Record, trains: bool) -> dict[str, Any]:
    """The part of a checkpoint's config that goes under the flags of a command line.

    Args:
        record: of the checkpoint.
        trains: whether the verb trains, and goes on with all that was set.
    """
    config = config_of(record)
    if trains:
        # The run's folders are where the checkpoint lies; not where a stranger's file would have them.
        return config | {"trainer": config["trainer"] | {"default_root_dir": None}}
    # Where it trained, how long, and what was saved when, says nothing about where it is tested.
    parts = {part: config[part] for part in ("seed_everything", "name", "model", "data")}
    return parts | {"trainer": {"precision": config["trainer"]["precision"]}}


def whose_setting(checkpoint: Record, name: str, words: Sequence[str]) -> str | None:
    """A sentence about a setting that nobody has typed, but the checkpoint has; None where it was typed."""
    if any(word.startswith(f"--{name}") for word in words):
        return None
    release = checkpoint.versions.get("bnn_lightning", "another release")
    return f"--ckpt_path {checkpoint.path} has the setting {name}, which is not known here; it is of {release}."
