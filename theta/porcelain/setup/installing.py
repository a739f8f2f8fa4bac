"""Setting up a repository: filter, hooks, attributes, sparse patterns.

Everything is local to the clone except ``.gitattributes``, and every step can be repeated.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from theta import _fs
from theta.git import run, state_files
from theta.git.object_values import Blob
from theta.git.quoting import split_lines
from theta.git.repository import ATTRIBUTES, STORES, Repository
from theta.git.run import DURABLE
from theta.porcelain.setup import configured_hooks, launcher, review_tools, sparse_patterns

HOOKS: Final = (
    "pre-commit",
    "prepare-commit-msg",
    "post-commit",
    "pre-merge-commit",
    "post-merge",
    "post-checkout",
    "post-applypatch",
    "post-rewrite",
    "post-index-change",
    "pre-push",
)
_WITH_INPUT: Final = ("post-rewrite", "pre-push")
_OWN: Final = 'own=${GIT_DIR:-.git}; [ -d "$own" ] || own=$(git rev-parse --git-dir)'
"""The line of a hook that finds the git directory of the worktree."""
_AGREED: Final = (
    'git=; [ -r "$own/theta/agreed" ] && read -r git <"$own/theta/agreed" && rm -f "$own/theta/agreed"',
    f'[ "$git" = "$PPID" ] && [ ! -e {STORES} ] && [ ! -e "$own/theta/resync" ] && exit 0',
)
"""The lines of post-commit that end it where pre-commit of the same git left nothing to do."""
_MARK: Final = "# theta hook 1"
CHAINED: Final = ".before-theta"
STORE_ATTRIBUTES: Final = f"{STORES}/** -text -diff -merge -delta -filter linguist-generated"
_LOCAL_ATTRIBUTES: Final = f"{STORES}/** -text -diff merge=theta -delta -filter"
# git sets GIT_EDITOR to ":" if no editor will open; then a line of the message may start with '#'.
_TEMPLATE: Final = (
    'if [ "$GIT_EDITOR" != : ] && [ -f "$1" ]; then',
    "\ttab=$(printf '\\t')",
    "\tsed -e '/^. You are in a sparse checkout with [0-9]*% of tracked files present\\.$/d' \\",
    '\t\t-e "/^[^ $tab]$tab.*[: ]\\"\\{0,1\\}\\(\\.\\.\\/\\)*\\.theta\\//d" "$1" >"$1.theta" &&',
    '\t\tcat "$1.theta" >"$1"',
    '\trm -f "$1.theta"',
    "fi",
)
"""Lines that remove git's comments about sparse checkout and ``.theta/`` from a message."""
_OWNS_DURABLE: Final = "theta.ownsfsync"
"""The key that is set if theta set ``core.fsync``, so that ``theta uninstall`` may unset it."""
_SIGNS: Final = ("filter=theta", "merge=theta", ".theta/**")


def is_used(repo: Repository) -> bool:
    """Return whether the attributes mention theta, those of folders too, or HEAD has a ``.theta/``."""
    here = [] if repo.is_bare else [repo.worktree / ATTRIBUTES]
    for attributes in [*here, repo.commondir / "info" / "attributes"]:
        if attributes.is_file() and _has_sign(attributes.read_text(errors="replace")):
            return True
    head = repo.head()
    if head is not None and repo.tree_of(head).get(STORES) is not None:
        return True
    return not repo.is_bare and any(map(_has_sign, _nested(repo)))


def _has_sign(text: str) -> bool:
    return any(sign in text for sign in _SIGNS)


def _nested(repo: Repository) -> Iterator[str]:
    """Yield the text of the attributes of each folder: the file's, or that of the index without one."""
    for path, oid in repo.attribute_files().items():
        place = repo.worktree / path
        yield place.read_text(errors="replace") if place.is_file() else _decoded(repo.blob_here(oid))


def _decoded(blob: Blob | None) -> str:
    return "" if blob is None else blob.data.decode("utf-8", "replace")


def ensure(repo: Repository, *, anew: bool = False, by_filter: bool = False) -> None:
    """Install missing parts; fast if nothing is missing.

    ``anew``: hooks become those that suit the installed git best.  ``by_filter``: a git runs that has read
    its settings, such as a clone; files are what it looks for.
    """
    if repo.is_bare or repo.is_read_only:
        return
    ensure_launcher(launcher_of(repo))
    _ensure_config(repo)
    _ensure_hooks(repo, anew=anew, only_files=by_filter)
    sparse_patterns.ensure_line(repo.commondir / "info" / "attributes", _LOCAL_ATTRIBUTES)
    sparse_patterns.ensure(repo)


def missing(repo: Repository) -> list[str]:
    """Return the parts that :func:`ensure` would write."""
    config = repo.lasting_config
    found = [key for key, value in settings().items() if config.get(key) != value]
    found += _missing_hooks(repo)
    if not _is_file(launcher_of(repo), _launcher()):
        found.append("launcher of this environment")
    local = repo.commondir / "info" / "attributes"
    if _LOCAL_ATTRIBUTES not in split_lines(state_files.text(local)):
        found.append("rule for .theta/ in info/attributes")
    if sparse_patterns.wanted(repo) and not repo.lasting_config.flag("core.sparsecheckout"):
        found.append("sparse patterns")
    return found


def passed_over(repo: Repository) -> str | None:
    """Return the ``core.hooksPath`` of this command alone that keeps git from theta's hooks; None without."""
    given = repo.config.get("core.hookspath")
    are_settings = (repo.commondir / configured_hooks.SETTINGS).is_file()
    return given if not are_settings and given != repo.lasting_config.get("core.hookspath") else None


def _missing_hooks(repo: Repository) -> list[str]:
    if (repo.commondir / configured_hooks.SETTINGS).is_file():
        complete = configured_hooks.are_complete(repo, _scripts()) and run.version() >= configured_hooks.FIRST
        return [] if complete else ["hooks by configuration that this git runs"]
    directory = hooks_directory(repo)
    return [f"hook {name}" for name in HOOKS if not _is_hook(directory / name, _script(name))]


def _is_hook(place: Path, script: str) -> bool:
    return _is_file(place, script.encode()) and os.access(place, os.X_OK)


def _is_file(place: Path, content: bytes) -> bool:
    return place.is_file() and place.read_bytes() == content


def ensure_durable(repo: Repository) -> list[str]:
    """Set ``core.fsync`` so that plain git syncs what it writes.

    Nothing is done if the user has a setting or has removed ours.  Returns a line that reports the change.
    """
    config = repo.lasting_config
    key, value = DURABLE
    if repo.is_bare or key in config or _OWNS_DURABLE in config:
        return []
    repo.git().run("config", "--local", _OWNS_DURABLE, "true")
    repo.git().run("config", "--local", key, value)
    return [
        f"git now syncs all that it writes in this clone to disk ({key}={value});"
        f" 'git config --unset {key}' undoes it"
    ]


def settings(command: str = launcher.FILTER) -> dict[str, str]:
    """Return the configuration of the filter and the merge driver."""
    return {
        "filter.theta.process": command,
        "filter.theta.required": "true",
        "merge.theta.name": "theta: .theta/ follows the manifests",
        "merge.theta.driver": "true",
    }


def _ensure_config(repo: Repository) -> None:
    config = repo.lasting_config
    for key, value in settings().items():
        if config.get(key) != value:
            repo.git().run("config", "--local", key, value)


def ensure_tools(repo: Repository) -> None:
    """Make theta a tool of ``git difftool`` and ``git mergetool`` in this clone."""
    config = repo.lasting_config
    for key, value in review_tools.ENTRIES.items():
        if config.get(key) != value:
            repo.git().run("config", "--local", key, value)


def hooks_directory(repo: Repository) -> Path:
    """Return git's hooks directory; ``core.hooksPath`` is respected."""
    config = repo.lasting_config
    if "core.hookspath" in config:
        return repo.worktree / Path(config.get("core.hookspath") or "").expanduser()
    return repo.commondir / "hooks"


def has_other_hooks(repo: Repository) -> bool:
    """Return whether hooks of the user may run, alone or before theta's."""
    directory = hooks_directory(repo)
    names = (path.name for path in directory.iterdir()) if directory.is_dir() else ()
    ours = () if (repo.commondir / configured_hooks.SETTINGS).is_file() else HOOKS
    by_files = any(name not in ours and not name.endswith(".sample") for name in names)
    return by_files or bool(configured_hooks.others(repo))


def comes_before_others(repo: Repository, event: str) -> bool:
    """Return whether git runs other hooks of ``event`` behind theta's, which may change what that saw."""
    if not (repo.commondir / configured_hooks.SETTINGS).is_file():
        return False
    return (hooks_directory(repo) / event).exists() or event in configured_hooks.others(repo)


def _scripts() -> dict[str, str]:
    """Return the hooks by configuration: event -> script."""
    return {name: _script(name, chained=False) for name in HOOKS}


def _ensure_hooks(repo: Repository, *, anew: bool, only_files: bool) -> None:
    """Install hooks in the way that they are there already, if the installed git runs them so.

    ``only_files``: new ones are files.
    """
    by_config = (repo.commondir / configured_hooks.SETTINGS).is_file()
    if not (by_config or anew) and not _missing_hooks(repo):
        return
    if (by_config or not only_files) and configured_hooks.can_be(repo):
        known = configured_hooks.is_known(repo) and configured_hooks.are_complete(repo, _scripts())
        if anew or not known:
            configured_hooks.install(repo, _scripts())
            _remove_files(repo)
        return
    if by_config:
        configured_hooks.remove(repo, HOOKS)
    _write_files(repo)


def _write_files(repo: Repository) -> None:
    """Write the hooks as files, each before one that is there."""
    directory = hooks_directory(repo)
    for name in HOOKS:
        path, script = directory / name, _script(name)
        existing = path.read_text(errors="replace") if path.exists() else None
        if existing == script and os.access(path, os.X_OK):
            continue
        _fs.make_dirs(directory)
        if existing is not None and _MARK not in existing:
            _fs.rename(path, f"{path}{CHAINED}")
        _fs.write_atomic(path, script.encode(), mode=0o777)


def _script(name: str, *, chained: bool = True) -> str:
    """Return the text of a hook; ``chained``: it runs the hook first that was there before."""
    before = f'"$0{CHAINED}"'
    more = f"; {name}{CHAINED} is the hook that was here before" if chained else ""
    lines = ["#!/bin/sh", f"{_MARK}: 'theta uninstall' removes it{more}"]
    if name in _WITH_INPUT:
        first = f'if [ -x {before} ]; then printf "%s\\n" "$input" | {before} "$@" || exit $?; fi'
        lines += [
            "input=$(cat)",
            *([first] if chained else []),
            '[ "$THETA_HOOKS" = off ] && exit 0',
            *_start_lines(name, given=True),
        ]
    else:
        lines += [
            *([f'if [ -x {before} ]; then {before} "$@" || exit $?; fi'] if chained else []),
            *(_TEMPLATE if name == "prepare-commit-msg" else ()),
            '[ "$THETA_HOOKS" = off ] && exit 0',
        ]
        if name == "prepare-commit-msg":
            lines += [_OWN, '[ -e "$own/theta/done.json" ] || exit 0']
        if name == "pre-commit":
            lines.append('set -- "$PPID"')
        if name == "post-commit":
            lines += [_OWN, *_AGREED]
        if name == "post-index-change":
            lines += [
                "unset GIT_INTERNAL_SUPER_PREFIX",
                _OWN,
                f'[ -e {STORES} ] || [ -e "$own/theta/resync" ] || exit 0',
            ]
        lines += _start_lines(name, given=False)
    return "\n".join(lines) + "\n"


def _start_lines(name: str, *, given: bool) -> list[str]:
    """Return the lines of hook ``name`` that run theta; ``given`` pipes ``$input`` to it."""
    return [
        f'launcher="{launcher.FIND}"',
        f'if [ -r "$launcher" ]; then set -- sh "$launcher" hook {name} "$@"',
        f'else command -v theta >/dev/null || exit 0; set -- theta hook {name} "$@"; fi',
        'printf "%s\\n" "$input" | "$@"' if given else 'exec "$@"',
    ]


def launcher_of(repo: Repository) -> Path:
    """Return the path of the launcher of a repository, outside of the caches, which may be deleted."""
    return repo.commondir / "info" / launcher.NAME


def ensure_launcher(path: Path) -> None:
    """Write the launcher of this theta to ``path`` unless it is up to date."""
    wanted = _launcher()
    if not _is_file(path, wanted):
        _fs.make_dirs(path.parent)
        _fs.write_atomic(path, wanted, mode=0o777)


def _launcher() -> bytes:
    """Return the launcher of this theta."""
    text = launcher.TEXT.replace("@PYTHON@", shlex.quote(sys.executable))
    text = text.replace("@PACKAGE@", shlex.quote(str(Path(__file__).parents[2])))
    return text.encode("utf-8", "surrogateescape")


def ensure_attributes(repo: Repository) -> None:
    """Make the rule for ``.theta/`` the last line of ``.gitattributes`` in the root."""
    path = repo.worktree / ".gitattributes"
    old = path.read_text("utf-8", "surrogateescape") if path.exists() else ""
    body = [line for line in split_lines(old) if line != STORE_ATTRIBUTES]
    new = "\n".join([*body, STORE_ATTRIBUTES]) + "\n"
    if new != old:
        _fs.write_atomic(path, new.encode("utf-8", "surrogateescape"))


def uninstall(repo: Repository) -> None:
    """Remove filter and hooks from this clone; commits and files stay as they are."""
    config, (durable, value) = repo.lasting_config, DURABLE
    keys = [*settings(), *review_tools.ENTRIES, _OWNS_DURABLE]
    if _OWNS_DURABLE in config and config.get(durable) == value:
        keys.append(durable)
    for key in keys:
        repo.git().run("config", "--local", "--unset", key, check=False)
    sparse_patterns.unwatch(repo)
    configured_hooks.remove(repo, HOOKS)
    _remove_files(repo)
    _fs.remove(launcher_of(repo))


def _remove_files(repo: Repository) -> None:
    """Remove the hooks that are files, and put back those that were there before."""
    directory = hooks_directory(repo)
    for name in HOOKS:
        path = directory / name
        if path.exists() and _MARK in path.read_text(errors="replace"):
            _fs.remove(path)
            chained = Path(f"{path}{CHAINED}")
            if chained.exists():
                _fs.rename(chained, path)
