"""Completion and manual pages, where shells and man search by themselves."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs
from theta.cli import catalogue, console, shell_words
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.cli import manual
else:
    manual = Module("theta.cli.manual")

_COMPLETIONS: Final = {
    "bash": ("bash-completion/completions/theta", "bash-completion/completions/git-theta"),
    "zsh": ("zsh/site-functions/_theta",),
    "fish": (
        *("fish/vendor_completions.d/theta.fish", "fish/vendor_completions.d/git-theta.fish"),
        "fish/vendor_conf.d/theta.fish",
    ),
}
"""Shell -> files below the folder of the user's data, each with its program of completion.

fish searches for a file of the name of a command, and git's is git's own: what completes ``git theta`` stands
in a file that each new fish reads.
"""


def is_installed(data: Path) -> bool:
    """Return whether :func:`install` ran for the folder ``data``."""
    return (data / _COMPLETIONS["bash"][0]).is_file()


def install(data: Path) -> int:
    """Write completion below ``data``, and manual pages beside this theta or below ``data``."""
    for shell, places in _COMPLETIONS.items():
        for place in places:
            _write(data / place, shell_words.script(shell))
    folder = _pages_folder(data)
    count = 0
    for name, page in pages():
        _write(folder / f"{name}.1", page)
        count += 1
    console.note(
        f"completion is in {data}: bash (by bash-completion) and fish find it in new shells",
        f"zsh needs this line in ~/.zshrc before compinit: fpath=({data}/zsh/site-functions $fpath)",
        f"{count} manual pages are in {folder}",
    )
    if folder.parents[2] / "bin" not in _searched():
        console.note(f"man finds them with: export MANPATH={folder.parent}:")
    return 0


def remove(data: Path) -> None:
    """Remove what :func:`install` wrote."""
    for place in (place for places in _COMPLETIONS.values() for place in places):
        _fs.remove(data / place)
    for name in page_names():
        _fs.remove(_pages_folder(data) / f"{name}.1")


def page_names() -> list[str]:
    """Return the names of the manual pages."""
    commands = [name for group in catalogue.COMMANDS.values() for name in group if name != "help"]
    return ["git-theta", "theta", *(f"theta-{name}" for name in commands)]


def pages() -> Iterator[tuple[str, str]]:
    """Yield name and text of each manual page, made from the help."""
    yield "git-theta", (resources.files("theta") / "docs" / "git-theta.1").read_text(encoding="utf-8")
    yield "theta", manual.overview()
    for name in page_names()[2:]:
        command = name.removeprefix("theta-")
        module = catalogue.module_of(command)
        yield name, manual.page(command, importlib.import_module(module).app if module else None)


def _pages_folder(data: Path) -> Path:
    """Return the folder of pages of the environment of this theta, which man finds by PATH, or the user's."""
    own = Path(sys.prefix)
    is_own = sys.prefix != sys.base_prefix and os.access(own, os.W_OK)
    return (own / "share" if is_own else data) / "man" / "man1"


def _searched() -> list[Path]:
    return [Path(place) for place in os.environ.get("PATH", "").split(os.pathsep)]


def _write(place: Path, text: str) -> None:
    _fs.make_dirs(place.parent)
    _fs.write_atomic(place, text.encode())
