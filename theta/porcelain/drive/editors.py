"""The user's editors for a git whose output does not go to the terminal."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Final

_NONE: Final = ":"
"""The editor with which git opens none."""
_ON_TERMINAL: Final = """on_terminal() {{
    editor=$({named}) || return
    if [ -t 0 ]; then eval "$editor \\"\\$@\\"" >/dev/tty 2>&1; else eval "$editor \\"\\$@\\""; fi
}}; on_terminal"""
_COMMANDS: Final = {
    "GIT_EDITOR": "unset GIT_EDITOR; git var GIT_EDITOR",
    "GIT_SEQUENCE_EDITOR": "git config sequence.editor || {}",
}
"""Commands that name the editor of each variable; a rebase without one of its own opens the other."""


def on_terminal(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which git's editors open on the terminal that is standard input.

    The editor is looked up when it opens, so that a git that opens none is not kept waiting.
    """
    found: dict[str, str] = {}
    if environment.get("GIT_EDITOR") == _NONE:
        return found
    named = ""
    for name, command in _COMMANDS.items():
        given = environment.get(name)
        named = f"printf '%s\\n' {shlex.quote(given)}" if given else command.format(named)
        found[name] = _ON_TERMINAL.format(named=named)
    return found
