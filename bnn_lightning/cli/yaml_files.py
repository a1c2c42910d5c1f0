"""What PyYAML reads of a config or study file without a word, although nobody means it so."""

from collections.abc import Hashable, Iterator
from typing import NoReturn

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

_TAG = "tag:yaml.org,2002:"
_MERGE = f"{_TAG}merge"


class PlainLoader(yaml.SafeLoader):
    """Reads text, numbers, truth values, nulls, lists and mappings; a date is text, as it is in a config of bnn fit."""


def _refused(_: yaml.SafeLoader, node: Node) -> NoReturn:
    said = f"values must be texts, numbers, lists or mappings, got one of {node.tag}"
    raise ConstructorError(None, None, said, node.start_mark)


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != f"{_TAG}timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind in ("timestamp", "binary", "set", "omap", "pairs"):  # what a command line has no words for
    PlainLoader.add_constructor(f"{_TAG}{_kind}", _refused)


def fault_in(text: str) -> str | None:
    """What a sentence says of a key that a mapping has twice, or of an anchor inside of which is its own alias.

    Returns:
        ``must have each key once, got the key trainer in lines 3 and 9; ...``; None where there is neither.

    Raises:
        yaml.YAMLError: when the text is no YAML.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        return None
    if endless := _within_itself(root, (), set()):
        return f"must have an end, got an anchor in line {endless.start_mark.line + 1} with its own alias inside"
    for mapping in _mappings(root, set()):
        lines: dict[Hashable, int] = {}
        for key, _ in mapping.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                where = f"lines {first} and {line}" if first != line else f"line {line}"
                return f"must have each key once, got the key {key.value} in {where}; put what is below them together"
            lines[key.tag, key.value] = line
    return None


def _within_itself(node: Node, around: tuple[Node, ...], seen: set[int]) -> Node | None:
    """The first node below ``node`` that is among the nodes around it: an alias is the node of its anchor."""
    if any(node is outer for outer in around):
        return node
    if isinstance(node, ScalarNode) or id(node) in seen:
        return None
    seen.add(id(node))
    return next((found for part in _parts(node) if (found := _within_itself(part, (*around, node), seen))), None)


def _mappings(node: Node, seen: set[int]) -> Iterator[MappingNode]:
    """The mappings in a node, each once: several places may have the alias of one anchor."""
    if isinstance(node, ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        yield node
    for part in _parts(node):
        yield from _mappings(part, seen)


def _parts(node: Node) -> Iterator[Node]:
    """The values of a list; the keys and values of a mapping."""
    for part in node.value:
        yield from part if isinstance(node, MappingNode) else (part,)
