"""Hooks by git's configuration, where git has that: the directory of hooks stays as it is.

The settings stand in a file of their own, which the configuration of the repository includes, and name
scripts beside it.  Git runs such hooks before the one in its directory.  An older git knows nothing of them:
with it, hooks are files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from theta import _fs
from theta.git import run
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.porcelain.setup import launcher

FIRST: Final = (2, 54)
"""The first version of git that has ``hook.NAME.command``."""
SETTINGS: Final = "info/theta-hooks.config"
_SCRIPTS: Final = "theta-hooks"
_INCLUDE: Final = "include.path"
_SEEN: Final = "# runs with: "
_MOST_SEEN: Final = 4
_HEAD: Final = "# 'theta uninstall' removes this file."


def can_be(repo: Repository) -> bool:
    """Return whether the installed git has hooks by configuration; a known one is not asked again."""
    return is_known(repo) or run.version() >= FIRST


def is_known(repo: Repository) -> bool:
    """Return whether the installed git is one of those for which they were set up."""
    return run.fingerprint() in _seen(repo)


def are_complete(repo: Repository, scripts: Mapping[str, str]) -> bool:
    """Return whether settings and ``scripts`` are there, event -> text."""
    settings = repo.commondir / SETTINGS
    return (
        settings.is_file()
        and settings.read_text("utf-8", "replace").endswith(_settings(scripts))
        and SETTINGS in repo.lasting_config.all(_INCLUDE)
        and all(_has(repo, event, text) for event, text in scripts.items())
    )


def install(repo: Repository, scripts: Mapping[str, str]) -> None:
    """Write what is missing: scripts first, then settings, and what includes these last."""
    for event, text in scripts.items():
        if not _has(repo, event, text):
            place = repo.commondir / "info" / _SCRIPTS / event
            _fs.make_dirs(place.parent)
            _fs.write_atomic(place, text.encode())
    seen = list(dict.fromkeys([*_seen(repo), run.fingerprint()]))[-_MOST_SEEN:]
    text = "".join(f"{line}\n" for line in (_HEAD, *(_SEEN + one for one in seen))) + _settings(scripts)
    place = repo.commondir / SETTINGS
    if not place.is_file() or place.read_text("utf-8", "replace") != text:
        _fs.write_atomic(place, text.encode("utf-8", "surrogateescape"))
    if SETTINGS not in repo.lasting_config.all(_INCLUDE):
        repo.git().run("config", "--local", "--add", _INCLUDE, SETTINGS)


def remove(repo: Repository, events: tuple[str, ...]) -> None:
    """Remove settings and scripts."""
    if SETTINGS in repo.lasting_config.all(_INCLUDE):
        value = "^" + SETTINGS.replace(".", "[.]") + "$"
        repo.git().run("config", "--local", "--unset-all", _INCLUDE, value, check=False)
    _fs.remove(repo.commondir / SETTINGS)
    for event in events:
        _fs.remove(repo.commondir / "info" / _SCRIPTS / event)


def others(repo: Repository) -> frozenset[str]:
    """Return the events for which the user has hooks by configuration."""
    config = repo.lasting_config
    names = [key for key in config if key.startswith("hook.") and key.endswith(".event")]
    kept = (key for key in names if not key.startswith(f"hook.{_name('')}"))
    return frozenset(event for key in kept for event in config.all(key))


def _seen(repo: Repository) -> list[str]:
    """Return the fingerprints of gits that run such hooks."""
    place = repo.commondir / SETTINGS
    lines = split_lines(place.read_text("utf-8", "surrogateescape")) if place.is_file() else []
    return [line.removeprefix(_SEEN) for line in lines if line.startswith(_SEEN)]


def _has(repo: Repository, event: str, text: str) -> bool:
    place = repo.commondir / "info" / _SCRIPTS / event
    return place.is_file() and place.read_bytes() == text.encode()


def _name(event: str) -> str:
    return f"theta-{event}"


def _settings(events: Mapping[str, str]) -> str:
    """Return the settings; git appends ``"$@"`` to a command, and runs it by the shell."""
    sections = []
    for event in events:
        found = launcher.find(f"{_SCRIPTS}/{event}")
        command = f'l="{found}"; [ -r "$l" ] || exit 0; exec sh "$l"'
        quoted = command.replace("\\", "\\\\").replace('"', '\\"')
        sections.append(f'[hook "{_name(event)}"]\n\tevent = {event}\n\tcommand = "{quoted}"\n')
    return "".join(sections)
