"""The options before the command: git's global ones, for theta and for every git that it starts.

git hands most of them to its own children in the environment, and so does theta.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from theta.cli import console
from theta.errors import NotFoundError, UsageError

_SWITCHES: Final = {
    "--no-pager": ("GIT_PAGER", "cat"),
    "-P": ("GIT_PAGER", "cat"),
    "--no-replace-objects": ("GIT_NO_REPLACE_OBJECTS", "1"),
    "--no-optional-locks": ("GIT_OPTIONAL_LOCKS", "0"),
    "--literal-pathspecs": ("GIT_LITERAL_PATHSPECS", "1"),
    "--glob-pathspecs": ("GIT_GLOB_PATHSPECS", "1"),
    "--noglob-pathspecs": ("GIT_NOGLOB_PATHSPECS", "1"),
    "--icase-pathspecs": ("GIT_ICASE_PATHSPECS", "1"),
}
_ASKING: Final = ("--exec-path", "--html-path", "--man-path", "--info-path")
_KNOWN: Final = (*_SWITCHES, *_ASKING, "--git-dir", "--work-tree", "--namespace", "--config-env", "--color",
                 "--engine", "--paginate", "--bare", "--quiet", "--version", "--help")  # fmt: skip

paginates = False
"""Whether ``--paginate`` was given."""


def taken(argv: list[str]) -> list[str]:
    """Apply the options before the command; return ``argv`` from the command on."""
    global paginates
    while argv and argv[0].startswith("-") and argv[0] not in ("--help", "-h", "--version", "-v"):
        word, argv = argv[0], argv[1:]
        name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if name in _VALUES:
            if not equals:
                if not argv:
                    raise UsageError(f"{name} needs a value")
                value, argv = argv[0], argv[1:]
            _VALUES[name](value)
        elif word in _SWITCHES:
            os.environ.update([_SWITCHES[word]])
        elif word in ("-p", "--paginate"):
            paginates = True
        elif word in ("--quiet", "--bare"):
            _quiet() if word == "--quiet" else _bare()
        elif name in _ASKING:
            return [word, *argv]
        else:
            raise _unknown(word)
    if paginates and argv:
        configure(f"pager.{argv[0]}=true")
    return argv


def configure(setting: str) -> None:
    """Set ``KEY=VALUE`` for every git that is started from now on (git's ``-c``)."""
    key, equals, value = setting.partition("=")
    words = f"{_quoted(key)}={_quoted(value) if equals else ''}"
    before = os.environ.get("GIT_CONFIG_PARAMETERS", "")
    os.environ["GIT_CONFIG_PARAMETERS"] = f"{before} {words}".strip()


def _quoted(text: str) -> str:
    """Quote ``text`` as git's sq_quote_buf does."""
    return "'" + text.replace("'", "'\\''").replace("!", "'\\!'") + "'"


def _directory(place: str) -> None:
    try:
        os.chdir(place or ".")
    except OSError as error:
        raise NotFoundError(f"cannot change to {place}: {error.strerror}") from error


def _config_env(setting: str) -> None:
    key, _, variable = setting.rpartition("=")
    if not key or variable not in os.environ:
        raise UsageError(f"--config-env={setting}: there is no environment variable {variable or '(none)'}")
    configure(f"{key}={os.environ[variable]}")


def _colour(when: str) -> None:
    if when not in ("always", "never", "auto"):
        raise UsageError(f"--color={when}: it is always, never or auto")
    console.colour = when
    configure(f"color.ui={when}")


def _bare() -> None:
    os.environ["GIT_IMPLICIT_WORK_TREE"] = "0"
    os.environ.setdefault("GIT_DIR", os.getcwd())


def _quiet() -> None:
    console.quiet = True


def _variable(name: str) -> Callable[[str], None]:
    return lambda value: os.environ.update({name: value})


_VALUES: Final[dict[str, Callable[[str], None]]] = {
    "-C": _directory,
    "-c": configure,
    "--config-env": _config_env,
    "--git-dir": _variable("GIT_DIR"),
    "--work-tree": _variable("GIT_WORK_TREE"),
    "--namespace": _variable("GIT_NAMESPACE"),
    "--color": _colour,
    "--engine": lambda spec: configure(f"theta.engine={spec}"),
}


def _unknown(word: str) -> UsageError:
    from difflib import get_close_matches

    near = get_close_matches(word.partition("=")[0], _KNOWN, 1)
    hint = f"did you mean {near[0]}?" if near else "theta --help lists what stands before a command"
    return UsageError(f"no such option: {word}", hint=hint)
