"""What a request to ``/predict`` holds, read within limits: images as the bytes of their files, or rows of a table."""

import base64
import binascii
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

Kind = Literal["images", "rows"]

_MOST_DIGITS = len(str(int(-sys.float_info.max)))  # with a sign
_FORM_FIELDS = ("image", "images")
_HOW: dict[Kind, str] = {
    "images": 'the bytes of an image with its content type, a form with files called image, or JSON with {"image": '
    'BASE64} or {"images": [BASE64, ...]}',
    "rows": 'JSON with {"rows": [{COLUMN: VALUE, ...}, ...]}',
}


class RefusedError(Exception):
    """A request that gets no prediction.

    Args:
        status: of HTTP.
        sentence: that says why, for whoever sent it.
    """

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


@dataclass(frozen=True)
class Limits:
    """What one request may hold.

    Args:
        max_bytes: of its body.
        max_examples: images or rows in it.
        max_pixels: of all its images, which workers look at: a small file may have many.
    """

    max_bytes: int
    max_examples: int
    max_pixels: int


async def examples_of(request: Request, kind: Kind, limits: Limits) -> list[Any]:
    """The examples in a request: bytes of pictures, which nobody has looked at yet, or rows by the names of columns.

    Raises:
        RefusedError: when it holds none, too many, or something else.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json"
    is_image = kind == "images" and (content_type.startswith("image/") or content_type == "multipart/form-data")
    if not is_json and not is_image:
        raise RefusedError(415, f"A request must be {_HOW[kind]}, got {content_type or 'no content type'}.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RefusedError(415, "The body must not be compressed; images are already.")
    body = await _body(request, limits.max_bytes)
    if not body:
        raise RefusedError(400, f"The body is empty; it must be {_HOW[kind]}.")
    if is_json:
        examples = _in_json(body, kind)
    elif content_type == "multipart/form-data":
        examples = await _in_form(request, body, limits.max_examples)
    else:
        examples = [body]
    if not examples:
        raise RefusedError(400, f"There must be one or more {kind} in a request, got none.")
    if len(examples) > limits.max_examples:
        raise RefusedError(413, f"A request may hold {limits.max_examples} {kind}, got {len(examples)}.")
    return examples


async def _body(request: Request, max_bytes: int) -> bytes:
    def too_large() -> NoReturn:
        raise RefusedError(413, f"A request may have {max_bytes:,} bytes, and this one has more.")

    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > max_bytes:
        too_large()
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > max_bytes:
                too_large()
            parts.append(part)
    except ClientDisconnect:
        raise RefusedError(400, "The connection ended before the body did.") from None
    return b"".join(parts)


def _in_json(body: bytes, kind: Kind) -> list[Any]:
    try:
        content = json.loads(body.decode("utf-8"), parse_constant=_no_number, parse_int=_whole)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise RefusedError(400, f"The body must be JSON, got one that is none: {reason}.") from None
    fields = ("image", "images") if kind == "images" else ("rows",)
    if not isinstance(content, dict):
        raise RefusedError(400, f"The body must be {_HOW[kind]}, got JSON that is no object.")
    if unknown := [name for name in content if name not in fields]:
        raise RefusedError(400, f"There is no field {_shown(unknown[0])}; it can be {' or '.join(fields)}.")
    if len(content) != 1:
        raise RefusedError(400, f"The body must have {' or '.join(fields)}, got {len(content)} fields.")
    ((name, value),) = content.items()
    if name == "image":
        return [_decoded(value, "image")]
    if not isinstance(value, list):
        raise RefusedError(400, f"{name} must be a list, got {_kind(value)}.")
    if kind == "images":
        return [_decoded(text, f"images[{place}]") for place, text in enumerate(value)]
    for place, row in enumerate(value):
        _check_row(row, f"rows[{place}]")
    return value


def _whole(digits: str) -> int | float:
    """A whole number; of more digits than a float64 can have it is infinite, as 1e400 is: Python would not read it."""
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _decoded(text: Any, name: str) -> bytes:
    if not isinstance(text, str):
        raise RefusedError(400, f"{name} must be a text in base64, got {_kind(text)}.")
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):  # letters that are not of ASCII
        raise RefusedError(400, f"{name} must be in base64, without a data: prefix and line breaks.") from None
    if not content:
        raise RefusedError(400, f"{name} must be the bytes of an image, got none.")
    return content


def _check_row(row: Any, name: str) -> None:
    if not isinstance(row, dict):
        raise RefusedError(400, f"{name} must be an object of values by column, got {_kind(row)}.")
    for column, value in row.items():
        if isinstance(value, dict | list):
            raise RefusedError(
                400, f"{name} must hold numbers and texts, got {_kind(value)} in the column {_shown(column)}."
            )


async def _in_form(request: Request, body: bytes, max_examples: int) -> list[bytes]:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    # One more than allowed, so that the sentence about the limit can be ours.
    parser = MultiPartParser(request.headers, stream(), max_files=max_examples + 1, max_fields=1)  # type: ignore[arg-type]
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = error.message if isinstance(error, MultiPartException) else "it has no boundary"
        raise RefusedError(400, f"The form cannot be read: {reason.rstrip('.')}.") from None
    contents = []
    try:
        for name, value in form.multi_items():
            if name not in _FORM_FIELDS:
                raise RefusedError(400, f"There is no field {_shown(name)}; files are called image.")
            if not isinstance(value, UploadFile):
                raise RefusedError(400, f"{name} must be a file of the form, got a text.")
            if not (content := await value.read()):
                raise RefusedError(400, f"{name} must be the bytes of an image, got an empty file.")
            contents.append(content)
    finally:
        await form.close()
    return contents


def _kind(value: Any) -> str:
    """What JSON calls a value."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _shown(name: str) -> str:
    """A name that a stranger has chosen, short and on one line."""
    return ascii(name if len(name) <= 40 else f"{name[:40]}...")
