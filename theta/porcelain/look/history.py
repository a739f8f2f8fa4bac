"""``theta log``: which commit changed which tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from theta.lazy import Module

if TYPE_CHECKING:
    from theta.git.options import Arguments
    from theta.git.run import Git
    from theta.porcelain.look import version_changes
    from theta.porcelain.look.version_changes import Summary
    from theta.porcelain.workspace.session import Session
    from theta.store.changes import Changes
else:
    version_changes = Module("theta.porcelain.look.version_changes")

HIDE: Final = ":(exclude,top).theta"
"""The pathspec that excludes the files below ``.theta/``."""

SELECT: Final = (
    *("--max-count", "--skip", "--since", "--after", "--until", "--before", "--author", "--committer"),
    *("--grep", "--all-match", "--invert-grep", "--regexp-ignore-case", "--extended-regexp"),
    *("--fixed-strings", "--perl-regexp", "--merges", "--no-merges", "--first-parent", "--all", "--branches"),
    *("--tags", "--remotes", "--not", "--exclude", "--glob", "--date-order", "--author-date-order"),
    *("--topo-order", "--reverse", "--cherry-pick", "--left-only", "--right-only", "--ancestry-path"),
    *("-S", "-G", "--pickaxe-regex", "--pickaxe-all", "--diff-filter", "--no-walk"),
)
"""Options of ``git log`` that select commits."""

FORM: Final = (
    *("--oneline", "--format", "--pretty", "--abbrev-commit", "--abbrev", "--date", "--relative-date"),
    *("--decorate", "--decorate-refs", "--decorate-refs-exclude", "--parents", "--notes", "--show-signature"),
    *("--color", "--encoding", "--expand-tabs", "--source", "--use-mailmap", "--mailmap", "--log-size"),
    *("--no-decorate", "--no-notes", "--no-abbrev-commit", "--no-color", "--no-expand-tabs"),
)
"""Options of ``git log`` that format the header of a commit."""


_SHOWS: Final = (
    *("--patch", "-u", "--unified", "--raw", "--patch-with-raw", "--stat", "--patch-with-stat", "--numstat"),
    *("--shortstat", "--dirstat", "--dirstat-by-file", "--cumulative", "--summary", "--compact-summary"),
    *("--name-only", "--name-status", "--check", "--binary", "--full-diff", "--cc", "-c", "-m", "-t", "-z"),
    *("--word-diff", "--color-words", "--function-context", "--remerge-diff", "--diff-merges", "--submodule"),
)
"""Options of ``git log`` that show files."""
_WALKS: Final = (
    *("--full-history", "--dense", "--sparse", "--simplify-merges", "--simplify-by-decoration"),
    *("--show-pulls", "--ancestry-path", "--remove-empty"),
)
"""Options that control how ``git log`` simplifies a history with paths."""


def without_stores(git: Git, command: str, line: Arguments) -> list[str]:
    """Return the arguments of ``git log`` or ``git show`` with a pathspec that excludes ``.theta/``.

    git is asked which form it accepts: paths may be given without ``--``, and options such as ``-L``
    allow no other path.  If it accepts none, the arguments are returned as they are.
    """
    given, names = list(line.given), {option.name for option in line.options}
    if command == "log" and line.known and not names & {*_SHOWS}:
        return given
    if not line.known and not _is_accepted(git, given):
        return given  # an option without its value would take the first word behind it
    found = [[*given, HIDE]]
    if "--" not in given[:-1]:
        head = given[:-1] if given[-1:] == ["--"] else given
        # With a pathspec, git would otherwise skip commits that change no other file.
        all_of_them = [] if names & {*_WALKS} else ["--full-history", "--sparse"]
        found.insert(0, [*all_of_them, *head, "--", HIDE])
    return next((args for args in found if _is_accepted(git, args)), given)


def _is_accepted(git: Git, args: Sequence[str]) -> bool:
    return git.run("log", "--no-walk", "--max-count=0", *args, check=False).code == 0


def commits(git: Git, line: Arguments) -> list[str]:
    """Return the commits that ``git log`` would show; ``line`` has options of ``SELECT`` only."""
    bare = ("--format=%H", "--no-patch", "--no-show-signature", "--no-notes", "--no-color")
    return git.run("log", *bare, *line.spelled).text.split()


def reached(git: Git, revision: str, paths: Sequence[str], limit: int | None) -> list[str]:
    """Return the commits that ``revision`` (or ``A..B``) reaches, or those of them that changed ``paths``."""
    most = [] if limit is None else [f"--max-count={limit}"]
    return git.run("rev-list", *most, "--end-of-options", revision, "--", *paths).text.split()


def told(git: Git, item: Summary, line: Arguments, paths: Sequence[str]) -> str:
    """Return what ``git log --stat`` prints of a commit, without its checkpoints; ``FORM`` options apply."""
    flags = [option.word for option in line.options if option.name in (*FORM, "--first-parent")]
    hidden = [f":(exclude,top,literal){path}" for path in version_changes.paths_of(item.checkpoints)]
    files = ("--", *(paths or [":(top)"]), HIDE, *hidden)
    walk = ("--no-walk", "--full-history", "--sparse")  # otherwise a pathspec may skip the commit
    return git.compared("log", *walk, "--stat", *flags, item.commit, *files).text.rstrip("\n")


def is_spaced(line: Arguments) -> bool:
    """Return whether git separates commits by an empty line: not in one-line and user-defined formats."""
    form = line.value("--pretty") or line.value("--format") or "medium"
    return not (line.has("--oneline") or "%" in form or form.startswith(("format:", "tformat:", "oneline")))


def changed(session: Session, found: list[str], glob: str | None, paths: Sequence[str]) -> Iterator[Summary]:
    """Yield a summary of each commit, limited to ``paths``; with ``glob``, to tensors whose name matches.

    A commit that changed no such tensor is skipped.
    """
    session.expect_trees(with_parents(session, found))
    for oid in found:
        item = version_changes.summarize(session, oid, paths)
        if glob is not None:
            kept = {path: _matching(changes, glob) for path, changes in item.checkpoints.items()}
            item = replace(
                item, checkpoints={path: changes for path, changes in kept.items() if changes.tensors}
            )
            if not item.checkpoints:
                continue
        yield item


def with_parents(session: Session, commits: list[str]) -> list[str]:
    """Return ``commits`` and the first parent of each."""
    firsts = (parent for oid in commits for parent in session.repo.commit(oid).parents[:1])
    return list(dict.fromkeys([*commits, *firsts]))


def _matching(found: Changes, glob: str) -> Changes:
    kept = tuple(c for c in found.tensors if fnmatchcase(c.name, glob) or fnmatchcase(c.old_name, glob))
    return replace(found, tensors=kept)
