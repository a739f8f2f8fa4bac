"""The history of checkpoints: which commit changed which tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Final

from theta.git.options import Arguments
from theta.git.run import Git
from theta.porcelain.look.commit_summary import Summary, summarize
from theta.porcelain.workspace import sharded_models
from theta.porcelain.workspace.session import Session
from theta.store.changes import Changes

HIDE: Final = ":(exclude,top).theta"
"""The pathspec that leaves out what is below ``.theta/``."""

SELECT: Final = (
    *("--max-count", "--skip", "--since", "--after", "--until", "--before", "--author", "--committer"),
    *("--grep", "--all-match", "--invert-grep", "--regexp-ignore-case", "--extended-regexp"),
    *("--fixed-strings", "--perl-regexp", "--merges", "--no-merges", "--first-parent", "--all", "--branches"),
    *("--tags", "--remotes", "--not", "--exclude", "--glob", "--date-order", "--author-date-order"),
    *("--topo-order", "--reverse", "--cherry-pick", "--left-only", "--right-only", "--ancestry-path"),
    *("-S", "-G", "--pickaxe-regex", "--pickaxe-all", "--diff-filter", "--no-walk"),
)
"""Options of git log that choose commits."""

FORM: Final = (
    *("--oneline", "--format", "--pretty", "--abbrev-commit", "--abbrev", "--date", "--relative-date"),
    *("--decorate", "--decorate-refs", "--decorate-refs-exclude", "--parents", "--notes", "--show-signature"),
    *("--color", "--encoding", "--expand-tabs", "--source", "--use-mailmap", "--mailmap", "--log-size"),
    *("--no-decorate", "--no-notes", "--no-abbrev-commit", "--no-color", "--no-expand-tabs"),
)
"""Options of git log that say how the head of a commit is printed."""


_SHOWS: Final = (
    *("--patch", "-u", "--unified", "--raw", "--patch-with-raw", "--stat", "--patch-with-stat", "--numstat"),
    *("--shortstat", "--dirstat", "--dirstat-by-file", "--cumulative", "--summary", "--compact-summary"),
    *("--name-only", "--name-status", "--check", "--binary", "--full-diff", "--cc", "-c", "-m", "-t", "-z"),
    *("--word-diff", "--color-words", "--function-context", "--remerge-diff", "--diff-merges", "--submodule"),
)
"""Options with which git log shows files."""
_WALKS: Final = (
    *("--full-history", "--dense", "--sparse", "--simplify-merges", "--simplify-by-decoration"),
    *("--show-pulls", "--ancestry-path", "--remove-empty"),
)
"""Options that say how commits are left out of a history with paths."""


def without_stores(git: Git, command: str, line: Arguments) -> list[str]:
    """The arguments of git log or git show with ``.theta/`` left out of what they print.

    git itself says whether it takes them so: paths may stand without ``--``, and options such as
    ``-L`` go with no other path.  Where it does not, they stay as they are.
    """
    given, names = list(line.given), {option.name for option in line.options}
    if command == "log" and line.known and not names & {*_SHOWS}:
        return given
    found = [[*given, HIDE]]
    if "--" not in given[:-1]:
        head = given[:-1] if given[-1:] == ["--"] else given
        # Else a pathspec would leave out commits that change nothing else.
        all_of_them = [] if names & {*_WALKS} else ["--full-history", "--sparse"]
        found.insert(0, [*all_of_them, *head, "--", HIDE])
    for args in found:
        if git.run("log", "--no-walk", "--max-count=0", *args, check=False).code == 0:
            return args
    return given


def commits(git: Git, line: Arguments) -> list[str]:
    """The commits that ``git log`` would show; ``line`` has options of ``SELECT`` only."""
    bare = ("--format=%H", "--no-patch", "--no-show-signature", "--no-notes", "--no-color")
    return git.run("log", *bare, *line.spelled).text.split()


def reached(git: Git, revision: str, paths: Sequence[str], limit: int | None) -> list[str]:
    """The commits that ``revision`` (or ``A..B``) reaches; with ``paths`` those that changed them."""
    most = [] if limit is None else [f"--max-count={limit}"]
    return git.run("rev-list", *most, "--end-of-options", revision, "--", *paths).text.split()


def told(git: Git, item: Summary, line: Arguments, paths: Sequence[str]) -> str:
    """What git log --stat prints of one commit, by the options of ``FORM``, without its checkpoints."""
    flags = [option.word for option in line.options if option.name in (*FORM, "--first-parent")]
    hidden = [f":(exclude,top,literal){path}" for path in sharded_models.paths_of(item.checkpoints)]
    files = ("--", *(paths or [":(top)"]), HIDE, *hidden)
    walk = ("--no-walk", "--full-history", "--sparse")  # else a pathspec may leave the commit out
    return git.compared("log", *walk, "--stat", *flags, item.commit, *files).text.rstrip("\n")


def is_spaced(line: Arguments) -> bool:
    """Whether git puts an empty line between commits: not in formats of the user's, nor in one line."""
    form = line.value("--pretty") or line.value("--format") or "medium"
    return not (line.has("--oneline") or "%" in form or form.startswith(("format:", "tformat:", "oneline")))


def changed(session: Session, found: list[str], glob: str | None, paths: Sequence[str]) -> Iterator[Summary]:
    """Each commit with what it changed at ``paths``; with ``glob`` only those that changed such a tensor."""
    session.expect_trees(with_parents(session, found))
    for oid in found:
        item = summarize(session, oid, paths)
        if glob is not None:
            kept = {path: _matching(changes, glob) for path, changes in item.checkpoints.items()}
            item = replace(
                item, checkpoints={path: changes for path, changes in kept.items() if changes.tensors}
            )
            if not item.checkpoints:
                continue
        yield item


def with_parents(session: Session, commits: list[str]) -> list[str]:
    """``commits`` and the first parent of each."""
    firsts = (parent for oid in commits for parent in session.repo.commit(oid).parents[:1])
    return list(dict.fromkeys([*commits, *firsts]))


def _matching(found: Changes, glob: str) -> Changes:
    kept = tuple(c for c in found.tensors if fnmatchcase(c.name, glob) or fnmatchcase(c.old_name, glob))
    return replace(found, tensors=kept)
