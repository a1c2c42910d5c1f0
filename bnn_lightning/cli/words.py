"""The words of a command line, looked at before they are parsed."""

from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

from bnn_lightning.checkpoints.upgrade import Say, upgraded_config, upgraded_words
from bnn_lightning.cli.errors import UsageError
from bnn_lightning.cli.names import PARTS
from bnn_lightning.cli.yaml_files import fault_in
from bnn_lightning.files import expanded_text
from bnn_lightning.shipped import found

# Flags that take a path, and the kind of file of the package that they take by a bare name.
_PATHS = {"-c": "config", "--config": "config", "--ckpt_path": "checkpoint", "--code": None}


def in_todays_words(words: Sequence[str], say: Say) -> list[str]:
    """The same words, and what their config files hold, with the names of earlier releases replaced.

    Args:
        words: of the command line.
        say: is told each old name, with the new one.
    """
    words = upgraded_words(list(words), say)
    for place, word in enumerate(words):
        if word.startswith("--config="):
            words[place] = f"--config={_config_in_todays_words(word.removeprefix('--config='), say)}"
        elif place and words[place - 1] in ("-c", "--config"):
            words[place] = _config_in_todays_words(word, say)
    return words


def _config_in_todays_words(file: str, say: Say) -> str:
    """The file itself, or the text of the config that it should be."""
    try:
        text = Path(file).read_text("utf-8")
        fault = fault_in(text)
        config = None if fault else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError):
        return file  # the parser says what is wrong with it
    if fault is not None:
        raise UsageError(f"--config {file} {fault}.")
    if not isinstance(config, dict):
        return file
    upgraded = upgraded_config(config, say)
    # The parser would read other letters in the encoding of the machine, which need not be UTF-8.
    as_it_is = upgraded == config and text.isascii()
    return file if as_it_is else yaml.safe_dump(_with_absolute_files(upgraded, Path(file).parent))


def _with_absolute_files(value: Any, folder: Path) -> Any:
    """A config whose names of other config files, which are relative to ``folder``, can be read from anywhere."""
    if isinstance(value, dict):
        return {key: _with_absolute_files(inner, folder) for key, inner in value.items()}
    is_name = isinstance(value, str) and value.endswith((".yaml", ".yml", ".json"))
    return str((folder / value).resolve()) if is_name and (folder / value).is_file() else value


def with_expanded_paths(words: Sequence[str]) -> list[str]:
    """The same words, with the paths expanded that are read before the parser has seen them.

    Bare names of configs and checkpoints that come with the package become their paths.
    """
    words = list(words)
    for place, word in enumerate(words):
        flag, equals, path = word.partition("=")
        if equals and flag in _PATHS:
            words[place] = f"{flag}={_path_of(flag, path)}"
        elif place and words[place - 1] in _PATHS:
            words[place] = _path_of(words[place - 1], word)
    return words


def _path_of(flag: str, path: str) -> str:
    kind = _PATHS[flag]
    return expanded_text(path) if kind is None else found(expanded_text(path), kind)


def expand_paths(part: Any) -> Any:
    """A parsed config with all its paths expanded; what holds others is changed in place.

    Every text counts that begins with ~ or has a variable: which settings of somebody's class are paths is not known.
    The images' own classes of this package expand theirs, so that a checkpoint keeps what was typed.
    """
    if isinstance(part, list):
        part[:] = [expand_paths(inner) for inner in part]
    elif isinstance(part, Namespace | dict):
        if not str(part.get("class_path")).startswith("bnn_lightning.data."):
            for name, inner in list(vars(part).items() if isinstance(part, Namespace) else part.items()):
                part[name] = expand_paths(inner)
    elif isinstance(part, str | Path):
        return type(part)(expanded_text(str(part)))
    return part


def with_switches_on(words: Sequence[str], switches: Collection[str]) -> list[str]:
    """The same words, where a flag of ``switches`` without a value means true: ``--report`` is ``--report=true``."""
    following = [*words[1:], "--"]
    return [
        f"{word}=true" if word in switches and after.startswith("-") else word
        for word, after in zip(words, following, strict=False)
    ]


def value_of(flag: str, words: Sequence[str]) -> str | None:
    """The value of ``--flag value`` or ``--flag=value``; the last one counts."""
    value = None
    for place, word in enumerate(words):
        if word == flag:
            value = words[place + 1] if place + 1 < len(words) else None
        elif word.startswith(f"{flag}="):
            value = word.removeprefix(f"{flag}=")
    return value


def chosen_name(key: str, words: Sequence[str]) -> str | None:
    """The class that the words, or else their config files, name for the setting ``key``, such as model.method."""
    name = value_of(f"--{key}", words) or value_of(f"--{key}.class_path", words)
    for config in reversed(configs_of(words)) if name is None else ():
        part = setting_in(config, key, None)
        name = part.get("class_path") if isinstance(part, dict) else part
        if isinstance(name, str):
            break
    return name if isinstance(name, str) else None


def configs_of(words: Sequence[str]) -> list[dict[str, Any]]:
    """What the config files among the words hold; the parser says what is wrong with those that are left out."""
    configs = []
    for file in _config_files(words):
        try:
            # A checkpoint's config is among the words as text.
            configs.append(yaml.safe_load(file if "\n" in file else Path(file).read_text("utf-8")))
        except (OSError, ValueError, yaml.YAMLError):
            continue
    return [config for config in configs if isinstance(config, dict)]


def empty_config(words: Sequence[str]) -> str | None:
    """The config file among the words that holds nothing, or nothing but comments, if there is one."""
    for file in _config_files(words):
        try:
            if Path(file).is_file() and yaml.safe_load(Path(file).read_text("utf-8")) is None:
                return file
        except (OSError, ValueError, yaml.YAMLError):
            continue
    return None


def setting_in(config: Any, key: str, default: Any) -> Any:
    """What one config says for the setting ``key``, such as model.method; ``default`` where it says nothing."""
    for word in key.split("."):
        settings = config.get("init_args", config) if isinstance(config, dict) else None
        if not isinstance(settings, dict) or word not in settings:
            return default
        config = settings[word]
    return config


def _config_files(words: Sequence[str]) -> list[str]:
    files = [word.partition("=")[2] for word in words if word.startswith("--config=")]
    return files + [after for word, after in pairwise(words) if word in ("-c", "--config")]


def configs_first(words: Sequence[str]) -> list[str]:
    """The same words with the config files in front, so that flags win wherever they stand."""
    configs, others = [], []
    rest = iter(words)
    for word in rest:
        if word in ("-c", "--config"):
            configs += [word, next(rest, "")]
        elif word.startswith("--config="):
            configs += ["--config", word.removeprefix("--config=")]
        else:
            others.append(word)
    return configs + others


def asks_for_help(words: Sequence[str]) -> bool:
    """Whether nothing is to be run, only help or a config to be shown."""
    names = [word.partition("=")[0] for word in words]
    return any(name == "-h" or name.endswith(("--help", ".help", "--print_config")) for name in names)


def part_of_a_part(words: Sequence[str]) -> str:
    """The part, such as model.method.prior, of which ``--PART.help`` asks for the names; empty where none is asked for.

    The parser knows no settings of a part that is not chosen, and wants a name after the help of a part's part.
    """
    following = [*words[1:], "--"]
    pairs = zip(words, following, strict=False)
    asked = [word[2:-5] for word, after in pairs if word.endswith(".help") and after.startswith("-")]
    return next((key for key in asked if key.rpartition(".")[0] in PARTS), "")


def gives_data(words: Sequence[str]) -> bool:
    """Whether a command line says which images, and not only how they are served."""
    names = {word.partition("=")[0].replace(".init_args", "") for word in words}
    given = names & {"--data", "--data.class_path", "--data.root", "--data.path"}
    return bool(given) or any("data" in config for config in configs_of(words))
