"""``theta clone``: a template that keeps ``.theta/`` out of the checkout, and finding the new repository.

git clone does the cloning, so that each of its options works as documented.  A template gives the new
repository and its submodules sparse patterns before their first checkout.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from theta import _fs
from theta.errors import NotFoundError
from theta.git.repository import STORES, Repository
from theta.git.run import DEFER, Git
from theta.porcelain.setup import installing
from theta.porcelain.workspace.session import Session

MARK: Final = "theta.cloned"
"""The configuration key by which the new repository is found; it is unset afterwards."""

_CONFIG: Final = b"[core]\n\tsparseCheckout = true\n\tsparseCheckoutCone = false\n"
_PATTERNS: Final = f"/*\n!/{STORES}/\n"
_GITLINK: Final = "160000"


@contextlib.contextmanager
def template() -> Iterator[Path]:
    """Return a context manager of a copy of the user's (or git's) template with sparse patterns."""
    with _fs.temporary_directory("theta-template-") as place:
        Git(place, extra=DEFER).run("init", "--quiet", ".")
        made = place / ".git"
        _fs.remove(made / "HEAD")
        for name in ("objects", "refs"):
            _fs.remove_tree(made / name)
        _fs.make_dirs(made / "info")
        _fs.write_atomic(made / "config", _CONFIG, durable=False)
        _fs.write_atomic(made / "info" / "sparse-checkout", _PATTERNS.encode(), durable=False)
        yield made


def find(token: str, args: Sequence[str], cwd: Path) -> Path:
    """Return the directory of the repository whose configuration has ``token``.

    It is one of the arguments, or a directory in ``cwd`` that git named after the URL.
    Raises :class:`NotFoundError`.
    """
    named = [cwd / arg for arg in reversed(args)]
    places = [*named, *(Path(entry) for entry in os.scandir(cwd) if entry.is_dir())]
    for own in (_git_directory, lambda place: place):  # a worktree first: its git directory may be elsewhere
        for place in places:
            gitdir = own(place)
            if gitdir is not None and _has(gitdir / "config", token):
                return place
    raise NotFoundError(
        "git clone is done, but its repository was not found",
        hint="run 'theta install' and 'theta restore .' in it",
    )


def _git_directory(worktree: Path) -> Path | None:
    """Return the git directory of a worktree, which ``.git`` is or names; None when it cannot be read."""
    place = worktree / ".git"
    try:
        if not place.is_file():
            return place
        text = place.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    return place.parent / text.removeprefix("gitdir: ").rstrip("\n")


def _has(config: Path, token: str) -> bool:
    try:
        return config.is_file() and token in config.read_text("utf-8", "replace")
    except OSError:
        return False


def has_checkpoints(repo: Repository) -> bool:
    """Return whether theta has a part in the branch that is checked out, or in any other."""
    if installing.is_used(repo):
        return True
    commits = map(repo.commit_here, set(repo.refs.all_resolved().values()))
    trees = (repo.tree_here(commit.tree) for commit in commits if commit is not None)
    return any(tree is not None and tree.get(STORES) is not None for tree in trees)


def drop_patterns(repo: Repository) -> None:
    """Remove the template's sparse patterns from a repository without checkpoints."""
    place = repo.gitdir / "info" / "sparse-checkout"
    if place.is_file() and place.read_text() == _PATTERNS:
        for key in ("core.sparseCheckout", "core.sparseCheckoutCone"):
            repo.git().run("config", "--local", "--unset", key, check=False)
        _fs.remove(place)


def submodules(session: Session) -> Iterator[Session]:
    """Yield the submodules that are checked out, recursively."""
    root = session.repo.worktree
    if not (root / ".gitmodules").is_file():
        return
    for row in session.repo.git().lines("ls-files", "-s", "-z", "--", ":(top)"):
        head, _, path = row.partition("\t")
        if head.startswith(_GITLINK) and os.path.lexists(root / path / ".git"):
            inner = Session.here(root / path)
            yield inner
            yield from submodules(inner)
