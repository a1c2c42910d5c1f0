"""What sentences share: an error's own words, the name that was meant, counts, lists of names, paths as text."""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches


def first_line(error: BaseException) -> str:
    """The first line of an error's message without its full stop; the error's class where it has no message."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


def one_line(error: BaseException) -> str:
    """The whole message likewise, its lines put into one."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The name that was probably meant."""
    by_letters = {each.lower(): each for each in known}
    close = get_close_matches(name.lower(), by_letters, n=1, cutoff=cutoff)
    return by_letters[close[0]] if close else None


def hint(meant: str | None) -> str:
    """`` (did you mean NAME?)``, or nothing."""
    return f" (did you mean {meant}?)" if meant else ""


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 hidden file``, ``2 hidden files``, ``3,000 classes``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Iterable[str], most: int = 3, between: str = ", ") -> str:
    """Names in a sentence: ``most`` of them, and how many others there are."""
    names = list(names)
    return between.join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def with_counts(counts: Mapping[str, int], most: int = 3) -> str:
    """Names with their numbers, the largest first, as :func:`listed`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return listed((f"{name or 'no ending'} {count:,}" for name, count in ordered), most)


def printable(path: os.PathLike[str] | str) -> str:
    r"""The path as text that can be written anywhere: bytes of a name that are not UTF-8 become ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
