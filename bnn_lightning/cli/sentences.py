"""What jsonargparse finds wrong with a command line, in one sentence with the flag, what came, and the cure."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from bnn_lightning.cli.names import PARTS, base_of, class_called, names_of, settings_of, settings_of_any
from bnn_lightning.cli.words import chosen_name, empty_config, value_of
from bnn_lightning.data import DataSource
from bnn_lightning.files import relative_to_cwd
from bnn_lightning.shipped import names as shipped_names
from bnn_lightning.wording import hint, nearest

_KINDS = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
_FLAG_CUTOFF = 0.65  # flags of one group begin alike
_FEW = 8  # settings that fit into a sentence
_OTHERS_WORDS = dict.fromkeys(("--epochs", "--num_epochs", "--n_epochs"), "--trainer.max_epochs")
_BOILERPLATE = ("Does not validate against any", "Subtypes:", "Errors:", "Given value", "- Expected a path but")


def one_sentence(message: str, verb: str = "fit", words: Sequence[str] = (), flags: Iterable[str] = ()) -> str:
    """What jsonargparse says about ``bnn VERB``, in one sentence.

    Args:
        message: its own.
        verb: that was asked for.
        words: those after it.
        flags: that the verb has.
    """
    # What stands in a config file is named as its flag would be.
    key = _key(message)
    return (
        _about_flags(message, key, verb, words, list(flags))
        or _about_settings(message, key, verb, words)
        or _about_files(message, key, words)
        or _about_names(message, key)
        or _about_values(message, key, verb)
        or _as_it_is(message, key)
    )


def _key(message: str) -> str:
    """The dotted name of the setting that a message is about."""
    keys: list[str] = []
    for key in re.findall(r'Parser key "([\w.]+)"', message):
        if key != ".".join(keys):  # said twice where the value is no file
            keys.append(key)
    if not keys and (asked := re.match(r"--([\w.]+)\.help: ", message)):
        return asked[1]
    return ".".join(keys).removeprefix("config.").replace(".init_args", "")


def _about_flags(message: str, key: str, verb: str, words: Sequence[str], flags: list[str]) -> str | None:
    if match := re.search(r"arguments are required: (.*)", message):
        names = match[1].split(", ")
        missing = " and ".join(f"--{key}.{name}" if key else f"--{name}" for name in names)
        if key:
            owner = re.search(r"Given value: \W*Namespace\(class_path='[\w.]*?(\w+)'", message)
            return f"{missing} is missing{f', which {owner[1]} needs' if owner else ''}."
        if said := misspelt(words, flags, names):
            return said
        missing += " is missing" if len(names) == 1 else " are missing"
        if "data" in names or "model.network" in names:
            return f"{missing}; start from a config, such as bnn fit --config 3conv3fc_lrt."
        return f"{missing}; bnn {verb} --help says what it is."
    if match := re.search(r"^argument (--[\w.]+): expected one argument", message):
        bare = [
            word
            for word, after in zip(words, [*words[1:], "--"], strict=True)
            if word.startswith(match[1]) and "=" not in word and after.startswith("--")
        ]
        return f"{bare[0] if bare else match[1]} needs a value after it."
    if match := re.search(r"unrecognized arguments: (\S+)", message):
        word = match[1].partition("=")[0]
        if key and word.startswith("--"):
            return f"--{key}.{word[2:]} is not a setting; bnn {verb} --{key}.help NAME lists those of NAME."
        if not word.startswith("-"):
            taken = hint((file_flag := _flag_of_file(word)) and f"{file_flag} {word}")
            return f"{match[1]} belongs to no flag{taken}; flags begin with --, and bnn {verb} --help lists them."
        return f"{word} is not a flag{_hint(word, flags)}; bnn {verb} --help lists them."
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'|^Option '([\w.-]+)'", message):
        flag = "--" + (match[3] or f"{match[1]}.{match[2]}").replace("init_args.", "")
        return f"{flag} is not a setting{_hint(flag, flags)}; bnn {verb} --help lists them."
    if match := re.search(r"Problems parsing config: (.*)", message, re.DOTALL):
        where = " ".join(match[1].replace('in "<unicode string>", ', "in ").split()).rstrip(".")
        return f"--config must be a YAML file, got one that is none: {where}."
    if key == "config" and (match := re.search(r"File does not exist: '([^']*)'", message)):
        file = Path(match[1])
        meant = nearest(file.stem, shipped_names("config"))
        which = f"{relative_to_cwd(file)}{hint(meant)}"
        return f"--config: there is no file {which}; bnn configs lists what comes with the package."
    if match := re.search(r"^Unexpected config: (.*)", message):
        empty = empty_config(words)
        got = match[1] if empty is None else f"{relative_to_cwd(Path(empty))}, which is empty"
        return f"--config must be settings by their names, got {got}."
    return None


def _flag_of_file(word: str) -> str | None:
    """The flag that takes a config or a checkpoint of this name, if it is one's."""
    kinds = {"--config": ("config", (".yaml", ".yml")), "--ckpt_path": ("checkpoint", (".ckpt",))}
    return next(
        (flag for flag, (kind, endings) in kinds.items() if word.endswith(endings) or word in shipped_names(kind)), None
    )


def _about_settings(message: str, key: str, verb: str, words: Sequence[str]) -> str | None:
    flag = f"--{key}"
    if match := re.search(r"Option '(\w+)' is not accepted", message):
        owner = class_called(chosen_name(key, words), key)
        known = settings_of(owner) if owner else settings_of_any(key) - {match[1]}
        meant = nearest(match[1], known)
        if meant is None and owner is not None and 0 < len(known) <= _FEW:
            return f"{flag}.{match[1]} is not a setting; those of {owner.__name__} are {', '.join(sorted(known))}."
        word = f"{flag}.{match[1]}"
        suggestion = hint(meant and f"{flag}.{meant}")
        return f"{word} is not a setting{suggestion}; bnn {verb} {flag}.help NAME lists those of NAME."
    if "is abstract" in message and (nested := re.search(r"NestedArg\(key='([\w.]+)'", message)):
        return f"{flag}.{nested[1]} is a setting of a part that is not chosen; name it before, as {flag} NAME."
    if nested := re.search(r"NestedArg\(key='([\w.]*\bhelp)'", message):
        return f"{flag}.{nested[1]} is a setting of a part that is not chosen; name it before, as {flag} NAME."
    if "Unable to load config" in message:
        part = re.sub(r"\.(\w+)$", lambda last: "" if flag.endswith(f"-{last[1]}.{last[1]}") else last[0], flag)
        return (
            f"{part} must be settings by their names, or the name of a YAML file with such{_part_called(part, words)}."
        )
    return None


def _part_called(group: str, words: Sequence[str]) -> str:
    """A hint at the flag that was meant where a class is given to the group of settings that it is one of."""
    given = value_of(group, words) or ""
    keys = (key for key in PARTS if key.rpartition(".")[0] == group.removeprefix("--"))
    meant = ((key, nearest(given, names_of(PARTS[key]), cutoff=0.8)) for key in keys)
    return hint(next((f"--{key} {name}" for key, name in meant if name), None))


def _about_files(message: str, key: str, words: Sequence[str]) -> str | None:
    """A file where the name of a class is due: jsonargparse has read it, and repeats what is in it."""
    flag, file = f"--{key}", value_of(f"--{key}", words)
    if "import path" not in message or file is None or not Path(file).is_file():
        return None
    cure = f"a table goes by {flag} Table {flag}.path {file}" if base_of(key) is DataSource else "name the class"
    return f"{flag} must be a name or a class path, got the file {file}; {cure}."


def _about_names(message: str, key: str) -> str | None:
    flag, base = f"--{key}", base_of(key)
    if match := re.search(r"Problem with given class_path '([\w.]+)':\s*(.*)", message):
        return f"{flag} names {match[1]}, which cannot be imported: {_why_not(match[2])}."
    if match := re.search(
        r"Callable\[\[[^\]]*\], [\w.]*?(\w+)\] expects.* Got value: \W*(?:\w+\(class_path=')?([\w.]+)", message
    ):
        return f"{flag} must be the class path of a subclass of {match[1]}, got {match[2]}."
    match = re.search(r"(?:Expected a dot import path string|Unexpected import path format): (.*)", message)
    if match and match[1][:1] not in "[{":
        if base is None:
            return f"{flag} must be a class path, got {match[1]}."
        if base is DataSource and Path(match[1]).is_dir():
            return (
                f"{flag} {match[1]} is a folder; pictures in folders go by {flag} ImageFolder {flag}.root {match[1]}."
            )
        names = names_of(base)
        meant = nearest(match[1], names)
        if not base.__module__.startswith("bnn_lightning."):
            kind = base.__name__
            must = f"it must be the name or class path of {_article(kind)} {kind}"
            return f"{flag} does not know {match[1]}{hint(meant)}; {must}."
        it = f"did you mean {meant}? It" if meant else "it"
        return f"{flag} does not know {match[1]}; {it} can be {', '.join(names)}, or the class path of your own."
    if match := re.search(r"ubclass of (\w+)|class, but [\w.]*?(\w+) is abstract", message):
        given = _value(message) or re.search(r"Import path ([\w.]+)", message)
        kind, got = match[1] or match[2], f", got {given[1]}" if given else ""
        known = f", such as {', '.join(names_of(base))}" if base else ""
        return f"{flag} must be the name of a {kind}{known}{got}."
    return None


def _article(word: str) -> str:
    return "an" if word[0] in "AEIO" else "a"


def _why_not(reason: str) -> str:
    """Why a class cannot be imported, and the cure where there is one."""
    if unknown := re.search(r"module '([\w.]+)' has no attribute '(\w+)'", reason):
        meant = nearest(unknown[2], vars(sys.modules[unknown[1]])) if unknown[1] in sys.modules else None
        return f"{reason.rstrip('.')}{hint(meant and f'{unknown[1]}.{meant}')}"
    here = "; --code FOLDER says where a module of your own is" if reason.startswith("No module named") else ""
    return f"{reason.rstrip('.')}{here}"


def _about_values(message: str, key: str, verb: str) -> str | None:
    flag, value = f"--{key}", _value(message)
    if value is None:
        return None
    if value[1] == "None":
        return f"{flag} must not be null; leave it out for its default."
    if match := re.search(r"Expected a typing.Literal\[([^\]]*)\]", message):
        choices = match[1].replace("'", "")
        return f"{flag} must be one of {choices}, got {value[1]}."
    kinds = re.findall(r"Expected a (?!<class 'NoneType'>|path)(.*?)(?:\. Got value|$)", message, re.MULTILINE)
    kind = re.fullmatch(r"<class '(\w+)'>", kinds[0]) if len(kinds) == 1 else None
    if kind and kind[1] == "list":
        base, is_word = base_of(key), re.fullmatch(r"[\w./-]+", value[1])
        example = (nearest(value[1], names_of(base)) if base and is_word else None) or (value[1] if is_word else "A, B")
        return f"{flag} must be a list, such as [{example}], got {value[1]}."
    if kind:
        return f"{flag} must be {_KINDS.get(kind[1], kind[1])}, got {value[1]}."
    return f"{flag} does not take {value[1]}; bnn {verb} --help says what it is." if kinds else None


def misspelt(words: Sequence[str], flags: Iterable[str], names: Iterable[str]) -> str | None:
    """A sentence about the word that was meant for one of the flags ``names``, if there is one."""
    for word in (word.partition("=")[0] for word in words if word.startswith("--")):
        meant = None if word in flags else nearest(word, flags, _FLAG_CUTOFF)
        if meant is not None and meant[2:] in names:
            return f"{word} is not a flag; did you mean {meant}?"
    return None


def _hint(word: str, flags: Iterable[str]) -> str:
    flags = [flag for flag in flags if not word.startswith(f"{flag}.")]
    if (own := _OTHERS_WORDS.get(word)) in flags:
        return hint(own)
    by_last_part = {flag.rpartition(".")[2]: flag for flag in reversed(flags)}
    close = nearest(word, flags, _FLAG_CUTOFF) or by_last_part.get(nearest(word[2:], by_last_part, _FLAG_CUTOFF) or "")
    return hint(close if word.startswith("--") else None)


def _as_it_is(message: str, key: str) -> str:
    lines = [
        line.strip()
        for line in re.sub(r'Parser key "[\w.]+":|^--[\w.]+\.help:', "", message).splitlines()
        if line.strip()
    ]
    text = " ".join(line for line in lines if not line.startswith(_BOILERPLATE)).rstrip(".")
    return f"--{key}: {text}." if key else f"{text}."


def _value(message: str) -> re.Match[str] | None:
    return re.search(r"(?:Got value|Given value): (.*)", message)
