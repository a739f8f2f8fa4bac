"""Readers of other packages, named by entry points of the group ``theta.formats``.

An entry point names an object with ``NAME``, ``detect(source)`` and ``scan(source)``, such as a module or an
instance.  Plug-ins come from installed packages, never from a repository.  Their layouts are validated like
all others, and a plug-in that cannot be loaded is skipped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from theta.errors import FormatError, ThetaError, in_short
from theta.formats.layout import Layout, Source, clip

GROUP: Final = "theta.formats"
_NAME_RE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Plugin:
    """A reader of another package, whose exceptions become ``FormatError``."""

    name: str
    reader: Any

    def scan(self, source: Source) -> Layout | None:
        """Return the validated layout of ``source``; None when the file does not have this format."""
        try:
            if not self.reader.detect(source):
                return None
            layout = self.reader.scan(source)
            if not isinstance(layout, Layout) or layout.format != self.name or layout.size != source.size:
                raise FormatError(f"{self.name}: the layout is not of this file")
            layout.validate()
        except ThetaError:
            raise
        except Exception as error:
            raise FormatError(f"the plug-in {self.name} failed: {in_short(error)}") from error
        return layout


@cache
def load(taken: frozenset[str]) -> tuple[tuple[Plugin, ...], str]:
    """Return the installed plug-ins, and one line about those that are skipped ('' if none).

    ``taken`` are the names of theta's own readers, which a plug-in must not have.
    """
    found: dict[str, Plugin] = {}
    problems: list[str] = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name, point.value)):
        plugin = _loaded(point)
        if isinstance(plugin, str):
            problems.append(plugin)
        elif plugin.name in taken or plugin.name in found:
            problems.append(
                f"the format plug-in {clip(point.name)} is left out: there is a {plugin.name} already"
            )
        else:
            found[plugin.name] = plugin
    return tuple(found.values()), "; ".join(problems)


def _loaded(point: EntryPoint) -> Plugin | str:
    """Load the plug-in of ``point``; return it, or a line about its error."""
    try:
        reader = point.load()
        name = reader.NAME
        if not isinstance(name, str) or not _NAME_RE.fullmatch(name):
            raise TypeError(f"{name!a} is no name of a format")
        if not callable(reader.detect) or not callable(reader.scan):
            raise TypeError("detect and scan cannot be called")
    except (Exception, SystemExit) as error:
        return f"the format plug-in {clip(point.name)} is left out: {in_short(error)}"
    return Plugin(name, reader)
