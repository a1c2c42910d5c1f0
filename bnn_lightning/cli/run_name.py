"""The name of a run's folders: the config's own, or one made of network, method and data where flags change these."""

import re
from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace

from bnn_lightning.cli.settings import class_name, class_of, method_name
from bnn_lightning.cli.words import configs_of, setting_in, value_of
from bnn_lightning.files import expanded
from bnn_lightning.inference import Variational

_LENGTH = 40  # characters of each part
_UNSAID = object()


def run_name(config: Namespace, words: Sequence[str]) -> str:
    """The name that says what runs.

    ``--name`` wins. The name in a config file stays as long as network, method, inference and data are those of the
    file, or what it leaves open; with others it would be the name of another run.

    Args:
        config: every setting, as it was parsed.
        words: of the command line, in today's words.
    """
    if config.name is not None and (value_of("--name", words) is not None or _is_what_was_named(config, words)):
        return config.name
    network, method, inference = (
        class_name(config.model.network),
        method_name(config.model),
        class_name(config.model.inference),
    )
    of_note = [] if inference in (Variational.__name__, method) else [inference]
    parts = [network, method, *of_note, _data_name(config.data)]
    return "_".join(re.sub(r"[^\w-]+", "-", part.lower())[:_LENGTH] for part in parts)


def _is_what_was_named(config: Namespace, words: Sequence[str]) -> bool:
    """Whether what runs is what the config file that gives the name, and those before it, have chosen."""
    files = configs_of(words)
    while files and "name" not in files[-1]:
        files.pop()
    now: dict[str, Any] = {
        "model.network": config.model.network,
        "model.method": config.model.method,
        "model.inference": config.model.inference,
        "data": config.data,
    }
    defaults = {"model.method": class_name(None), "model.inference": Variational.__name__}
    then = {key: _class_in(files, key) or defaults.get(key, class_name(part)) for key, part in now.items()}
    return then == {key: class_name(part) for key, part in now.items()} and all(
        setting_in(file, f"data.{key}", path) == path for file in files for key, path in _own_files(config.data).items()
    )


def _class_in(files: Sequence[dict[str, Any]], key: str) -> str | None:
    """The class that config files name for a setting, without its module; None where they leave it open."""
    for file in reversed(files):
        part = setting_in(file, key, _UNSAID)
        if isinstance(part, dict):
            part = part.get("class_path", _UNSAID)
        if part is None:
            return class_name(None)
        if isinstance(part, str) and not part.endswith((".yaml", ".yml", ".json")):  # another file holds the part
            return part.rpartition(".")[2]
    return None


def _own_files(data: Namespace) -> dict[str, str]:
    """The setting that names a user's own folder or file; none where the class says which examples these are."""
    if getattr(class_of(data), "name_identifies_examples", True):
        return {}
    settings = data.get("init_args") or Namespace()
    return {key: settings[key] for key in ("root", "path") if settings.get(key) is not None}


def _data_name(data: Namespace) -> str:
    """The name of a user's own folder or file, else that of the class."""
    for path in map(expanded, _own_files(data).values()):
        return (path.resolve().name if path.is_dir() else path.stem) or class_name(data)
    return class_name(data)
