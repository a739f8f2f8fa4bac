"""Keeping ``.theta/`` out of the worktree by sparse patterns, in a repository with checkpoints.

In a sparse checkout git does not check untracked files before it writes (:mod:`overwrites`).  But it reads
the patterns for every step, and before that it asks the program in ``core.fsmonitor`` which files changed.
Theta's program (:data:`_SCRIPT`) answers "any file".  If an untracked file is in the way, the program moves
the patterns away until that git ends: then git treats the checkout as a full one, and checks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import MissingObjectsError, NotHereYetError, UnsupportedRepositoryError
from theta.git import processes, state_files
from theta.git.options import BEFORE_COMMAND
from theta.git.quoting import split_lines
from theta.git.repository import STORES, Repository
from theta.porcelain.setup import launcher

_MAX_STORED: Final = 16 << 20
_PATTERN: Final = f"!/{STORES}/"
_MONITOR: Final = (
    "unset GIT_INTERNAL_SUPER_PREFIX; "
    'd=${GIT_DIR:-.git}; test -f "$d/info/theta-guard" || d=$(git rev-parse --git-common-dir); '
    'test -f "$d/info/theta-guard" && . "$d/info/theta-guard"'
)
"""Git runs it by ``sh -c`` with two arguments; if the script is missing, git examines the files itself."""

_SCRIPT: Final = r"""# theta guard 1: git asks this which files changed, before it writes any.
pid=$PPID
own=${GIT_DIR:-.git}
[ -d "$own" ] || own=$(git rev-parse --git-dir)
patterns=$own/info/sparse-checkout

words() {
    [ -r "/proc/$pid/cmdline" ] && cat "/proc/$pid/cmdline" && return
    ps -o args= -p "$pid" | tr ' ' '\0'
}

untracked() { git -c core.fsmonitor=false ls-files -o --exclude-standard; }

reads() {
    set -f
    value=git
    for word in $(words | tr '\0' ' '); do
        [ -n "$value" ] && value= && continue
        case "$word" in
            VALUES) value=of ;;
            -*) ;;
            status|add|commit|diff*|log|show|rm|mv|ls-files|blame|grep|describe|fetch|push) return 0 ;;
            *) return 1 ;;
        esac
    done
}

guard() {
    if [ -e "$own/theta/patterns" ]; then
        kill -0 "$(cat "$own/theta/holder")" 2>/dev/null && return
        mv "$own/theta/patterns" "$patterns"
    fi
    [ "$THETA_HOOKS" = off ] && return
    reads && return
    [ -n "$(untracked | head -c 1)" ] || return
    seen=$( (words; untracked) | cksum)
    [ "$(cat "$own/theta/seen" 2>/dev/null)" = "$pid $seen" ] && return
    mkdir -p "$own/theta"
    if [ "$(words | THETA_HOOKS=off COMMAND hook guard)" = "in the way" ]; then
        echo "$pid" > "$own/theta/holder"
        mv "$patterns" "$own/theta/patterns"
    else
        echo "$pid $seen" > "$own/theta/seen"
    fi
}

guard >/dev/null
if [ "$1" = 1 ]; then printf '/\0'; else printf 'theta\0/\0'; fi
"""


def ensure(repo: Repository) -> None:
    """Keep ``.theta/`` out of the worktree if HEAD, a branch, a tag or a stash has one."""
    if _is_on(repo) or wanted(repo):
        require(repo)


def wanted(repo: Repository) -> bool:
    """Return whether HEAD, a branch, a tag or a stash has a ``.theta/``, or its tree is not fetched yet."""
    names = ["HEAD", *repo.refs]
    if repo.promised.is_partial:
        commits = filter(None, map(repo.commit_of, names))
        repo.promised.expect(repo.commit(oid).tree for oid in commits)
    return any(_has_stores(repo, name) for name in names)


def _has_stores(repo: Repository, name: str) -> bool:
    commit = repo.commit_of(name)
    try:
        return commit is not None and STORES in repo.read_tree(repo.commit(commit).tree)
    except NotHereYetError:
        return True
    except MissingObjectsError:
        return False


def _is_on(repo: Repository) -> bool:
    return repo.lasting_config.flag("core.sparsecheckout")


def require(repo: Repository) -> None:
    """Keep ``.theta/`` out of the worktree, in addition to the user's sparse patterns."""
    if _are_moved_away(repo):
        return
    config, sparse = repo.lasting_config, _is_on(repo)
    cone = sparse and config.flag("core.sparsecheckoutcone")
    if config.flag("index.sparse"):
        repo.git().run("sparse-checkout", "reapply", "--no-sparse-index")
    if cone:
        _refuse_cone_with_stores(repo)
        return
    _watch(repo)
    patterns = repo.gitdir / "info" / "sparse-checkout"
    if sparse and patterns.exists():
        changed = ensure_line(patterns, _PATTERN)
    else:
        _fs.make_dirs(patterns.parent)
        _fs.write_atomic(patterns, f"/*\n{_PATTERN}\n".encode())
        scope = "--worktree" if "extensions.worktreeconfig" in config else "--local"
        repo.git().run("config", scope, "core.sparseCheckout", "true")
        repo.git().run("config", scope, "core.sparseCheckoutCone", "false")
        changed = True
    if changed and repo.index_path.exists():
        repo.git().run("sparse-checkout", "reapply", check=False)
    clear_stores(repo)


def _refuse_cone_with_stores(repo: Repository) -> None:
    patterns = repo.gitdir / "info" / "sparse-checkout"
    if f"/{STORES}/" in split_lines(state_files.text(patterns)):
        raise UnsupportedRepositoryError(
            "the sparse-checkout lists .theta/, which must stay out of the worktree",
            hint="run 'git sparse-checkout set' without .theta",
        )


def clear_stores(repo: Repository) -> None:
    """Remove files of ``.theta/`` that a git command left in the worktree.

    Only files whose content is an object of the repository are removed, so nothing can be lost.
    """
    root = repo.worktree / STORES
    if not root.is_dir() or root.is_symlink():
        return
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(directory) / name
            if not path.is_symlink() and path.stat().st_size <= _MAX_STORED:
                data = path.read_bytes()
                if repo.has(repo.format.blob_id(data)):
                    _fs.remove(path)
        _fs.remove_empty_dir(directory)


def _are_moved_away(repo: Repository) -> bool:
    """Return whether the patterns are moved away for a running git; otherwise move them back."""
    patterns, holder = repo.private / "patterns", repo.private / "holder"
    if not patterns.exists():
        return False
    text = holder.read_text().strip() if holder.exists() else ""
    if text.isdigit() and processes.exists(int(text)):
        return True
    _fs.rename(patterns, repo.gitdir / "info" / "sparse-checkout")
    return False


def _watch(repo: Repository) -> None:
    """Make plain git run the guard, unless the user has an fsmonitor."""
    config = repo.lasting_config
    if "core.fsmonitor" not in config:
        repo.git().run("config", "--local", "core.fsmonitor", _MONITOR)
    elif config.get("core.fsmonitor") != _MONITOR:
        return
    filled = _SCRIPT.replace("COMMAND", launcher.COMMAND).replace("VALUES", "|".join(BEFORE_COMMAND))
    place, script = _guard(repo), filled.encode()
    if not place.exists() or place.read_bytes() != script:
        _fs.make_dirs(place.parent)
        _fs.write_atomic(place, script)


def _guard(repo: Repository) -> Path:
    """Return the script that the fsmonitor runs; it is not in ``.git/theta/``, which may be deleted."""
    return repo.commondir / "info" / "theta-guard"


def unwatch(repo: Repository) -> None:
    """Remove the guard."""
    _are_moved_away(repo)
    if repo.lasting_config.get("core.fsmonitor") == _MONITOR:
        repo.git().run("config", "--local", "--unset", "core.fsmonitor", check=False)
    if _guard(repo).exists():
        _fs.remove(_guard(repo))


def ensure_line(path: Path, line: str) -> bool:
    """Append ``line`` to the text file at ``path`` unless it is there; return whether it was missing."""
    text = state_files.text(path)
    if line in split_lines(text):
        return False
    _fs.make_dirs(path.parent)
    joint = "" if not text or text.endswith("\n") else "\n"
    _fs.write_atomic(path, f"{text}{joint}{line}\n".encode("utf-8", "surrogateescape"))
    return True
