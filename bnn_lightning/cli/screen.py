"""Standard output and errors that cannot end a run: by a closed pipe, a full disk, letters unknown to them."""

import codecs
import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_SPELT = {"±": "+-", "…": "...", "°": " degrees", "—": "-"}
_ERRORS = "bnn_lightning.spell"


class Screen:
    """A stream whose first failure to write is kept in ``failure``; nothing is written to it from then on.

    All else is the stream's own.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        if self.failure is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._give_up(error)
        return len(text)

    def flush(self) -> None:
        if self.failure is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self.failure = error
        # What is still in the stream's buffer would fail again when Python ends.
        with contextlib.suppress(OSError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def unfailing_screen() -> Iterator[Screen | None]:
    """Has ``sys.stdout`` and ``sys.stderr`` take every text, and go on in silence when they can no longer be written.

    Letters that their encoding lacks are spelt: ± as +-, others by their number, such as u7ea2. Yields the stream of
    standard output, or None where the process has none.
    """
    codecs.register_error(_ERRORS, _spell)
    before = sys.stdout, sys.stderr
    for stream in before:
        # Another way was asked for by PYTHONIOENCODING; surrogateescape is Python's own in the locale C.
        if hasattr(stream, "reconfigure") and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors=_ERRORS)
    out, err = (None if stream is None else Screen(stream) for stream in before)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out
    finally:
        for screen in (out, err):
            if screen is not None:
                screen.flush()
        sys.stdout, sys.stderr = before


def lost_output(screen: Screen | None) -> str:
    """Why what was printed is not all there, in a sentence; empty if it is, or if the reader of a pipe had enough."""
    if screen is None or screen.failure is None or screen.failure.errno == errno.EPIPE:
        return ""
    return f"what was printed could not all be written: {screen.failure.strerror}."


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letters = error.object[error.start : error.end]
    spelt = "".join(_SPELT.get(letter) or letter.encode("ascii", "backslashreplace").decode() for letter in letters)
    return spelt, error.end
