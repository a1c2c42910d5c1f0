"""Keys that stand twice in a YAML file, of which PyYAML keeps the last and says nothing."""

from collections.abc import Hashable, Iterator

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

_MERGE = "tag:yaml.org,2002:merge"


def repeated_key(text: str) -> str | None:
    """What a sentence says of the first key that a mapping has twice: ``key trainer in lines 3 and 9``.

    Returns:
        None where there is none.

    Raises:
        yaml.YAMLError: when the text is no YAML.
    """
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    for mapping in _mappings(root, set()) if root is not None else ():
        lines: dict[Hashable, int] = {}
        for key, _ in mapping.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if first := lines.get((key.tag, key.value)):
                where = f"lines {first} and {line}" if first != line else f"line {line}"
                return f"key {key.value} in {where}"
            lines[key.tag, key.value] = line
    return None


def _mappings(node: Node, seen: set[int]) -> Iterator[MappingNode]:
    """The mappings in a node, each once: an alias is the node of its anchor, and may be inside of it."""
    if isinstance(node, ScalarNode) or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, MappingNode):
        yield node
    for part in node.value:
        for inner in part if isinstance(node, MappingNode) else (part,):
            yield from _mappings(inner, seen)
