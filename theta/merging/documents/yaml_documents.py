"""YAML files of plain values, checked before they are loaded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from theta.errors import UsageError

MAX_BYTES: Final = 1 << 20
_MAX_NODES: Final = 20_000
_MAX_DEPTH: Final = 20
_LIMITS: Final = f"a recipe has at most {_MAX_NODES} values, nested {_MAX_DEPTH} deep at most"
_MAX_BITS: Final = 64


def parsed(data: bytes, label: str) -> list[dict[str, Any]]:
    """Parse the YAML mappings of a file; size, aliases and duplicate keys are checked."""
    import yaml

    if len(data) > MAX_BYTES:
        raise UsageError(f"{label}: a recipe of {len(data)} bytes is over the limit of {MAX_BYTES}")
    try:
        text = data.decode("utf-8")
        _check_events(yaml.parse(text, Loader=yaml.SafeLoader), label, yaml)
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            _check_keys(node, label, yaml)
        bodies = [body for body in yaml.safe_load_all(text) if body is not None]
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise UsageError(f"{label}: not a YAML file: {' '.join(str(error).split())[:200]}") from error
    if not bodies or not all(isinstance(body, dict) for body in bodies):
        raise UsageError(f"{label}: a recipe is a mapping", hint="merge_method: linear")
    check_plain(bodies, label)
    return bodies


def check_plain(bodies: object, label: str) -> None:
    """Raise :class:`UsageError` for parsed documents with too many values, too deep, or with huge numbers."""
    waiting = [(bodies, 0)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if count > _MAX_NODES or depth > _MAX_DEPTH + 1:  # the documents are a list
            raise UsageError(f"{label}: {_LIMITS}")
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise UsageError(f"{label}: a number of {value.bit_length()} bits is too large")
        if isinstance(value, dict):
            waiting += [(one, depth + 1) for pair in value.items() for one in pair]
        elif isinstance(value, list | tuple | set):
            waiting += [(one, depth + 1) for one in value]


def _check_events(events: Iterable[Any], label: str, yaml: Any) -> None:
    """Raise :class:`UsageError` for documents that are expensive to load, before loading them."""
    depth = 0
    for count, event in enumerate(events):
        # Nested aliases expand a few lines to gigabytes.
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"{label}: aliases (*{event.anchor}) are not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if count > _MAX_NODES or depth > _MAX_DEPTH:
            raise UsageError(f"{label}: {_LIMITS}")


def _check_keys(node: Any, label: str, yaml: Any) -> None:
    """Raise :class:`UsageError` for a duplicate key."""
    waiting = [node]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, yaml.MappingNode):
            keys = [key.value for key, _ in entry.value]
            if len({str(key) for key in keys}) < len(keys):
                raise UsageError(f"{label}: a key stands twice on line {entry.start_mark.line + 1}")
            waiting += [value for _, value in entry.value]
        elif isinstance(entry, yaml.SequenceNode):
            waiting += entry.value
