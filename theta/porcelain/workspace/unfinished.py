"""Repairing a cherry-pick, revert, rebase or am whose git was killed: no commit is skipped or repeated.

Git writes the list of commits (``sequencer/todo``), applies the first one, writes its id
(``CHERRY_PICK_HEAD``, ``REVERT_HEAD``), commits, and removes the id.  ``--continue`` always skips the first
commit of the list, and commits first if there is such an id.

A rebase removes a step from ``git-rebase-todo`` before it adds it to ``done``, so a killed git leaves it in
neither file.  At the start of a rebase git writes its files one by one, and at the end it removes them so.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from theta import _fs
from theta.git import state_files
from theta.git.quoting import split_lines
from theta.git.repository import Repository

_APPLIED: Final = (state_files.CHERRY_PICK_HEAD, state_files.REVERT_HEAD)
_COMMANDS: Final = ("pick", "revert")
_BY_GIT: Final = re.compile(r"cherry-pick|revert|commit \(cherry-pick\)")
"""The start of the reflog message when a sequence, not the user, moved HEAD."""
_NEEDED: Final = (state_files.REBASE_BRANCH, state_files.REBASE_ONTO, state_files.REBASE_FROM)
"""State files without which git can neither continue nor abort a rebase."""
_DIGITS: Final = 7
"""The fewest digits of an id in the first list."""


def end(repo: Repository, before: str) -> None:
    """Remove the state files of a commit that git made: HEAD is not ``before``, and equals the index."""
    if repo.head() in (None, before) or state_files.rebasing(repo.gitdir):
        return
    for name in _APPLIED:
        if state_files.exists(repo.gitdir, name) and _is_over(repo, name) and _is_committed(repo):
            state_files.remove(repo.gitdir, name)
    if state_files.exists(repo.gitdir, *_APPLIED, state_files.MERGE_HEAD):
        return
    message = repo.gitdir / state_files.MERGE_MSG
    if message.exists() and _is_before_log(repo, state_files.MERGE_MSG):
        _fs.remove(message)


def go_on(repo: Repository) -> None:
    """Correct the sequencer's files for ``--continue`` and ``--abort``."""
    place, safety = repo.gitdir / state_files.SEQUENCER, repo.gitdir / state_files.SEQUENCER_SAFETY
    if not place.is_dir():
        return
    nothing_made = not _commits(repo) and _is_committed(repo)  # all was undone
    if nothing_made or not (repo.gitdir / state_files.SEQUENCER_TODO).exists():  # not begun, or finished
        repo.git().run("cherry-pick", "--quit")
        return
    if interrupted(repo):
        _repeat(repo)
    here = f"{repo.head()}\n"  # --abort refuses if HEAD is another commit
    if safety.exists() and state_files.text(safety) != here and _BY_GIT.match(_last_move(repo)):
        _fs.write_atomic(safety, here.encode())


def _last_move(repo: Repository) -> str:
    """Return why HEAD moved last, according to its reflog."""
    return repo.git().run("log", "-g", "-1", "--format=%gs", "HEAD", check=False).text


def interrupted(repo: Repository) -> str:
    """Return the commit that a killed git was applying in a sequence; empty if there is none."""
    todo = state_files.SEQUENCER_TODO
    if state_files.exists(repo.gitdir, *_APPLIED) or not (repo.gitdir / todo).exists():
        return ""
    steps = _steps(repo)
    if not steps or _is_before_log(repo, todo, exactly=True) or not _commits(repo):
        return ""
    return repo.commit_of(steps[0].split()[1]) or ""


def _is_before_log(repo: Repository, name: str, *, exactly: bool = False) -> bool:
    """Return whether git wrote ``name`` before HEAD moved last, or, unless ``exactly``, in the same tick."""
    logs = (repo.gitdir / one for one in state_files.LOGS_OF_HEAD)
    log = next((place for place in logs if place.exists()), None)
    if log is None:
        return not exactly
    if repo.head() not in repo.refs.log("HEAD")[:1]:  # git was killed before it moved HEAD
        return False
    ahead = log.stat().st_mtime_ns - (repo.gitdir / name).stat().st_mtime_ns
    return ahead > 0 or (ahead == 0 and not exactly)


def _is_over(repo: Repository, name: str) -> bool:
    """Return whether HEAD is the commit that git made of the one in ``name``, which it had to remove then.

    A ref in a table has no time; what git picks keeps its author and the moment, a revert names its commit.
    """
    if not state_files.is_in_table(repo.gitdir, name):
        return _is_before_log(repo, name)
    oid, head = state_files.content(repo.gitdir, name), repo.head()
    if head is None or not _BY_GIT.match(_last_move(repo)):
        return False
    made, applied = repo.commit(head), repo.commit(oid)
    is_revert = name == state_files.REVERT_HEAD
    return oid in made.message if is_revert else made.author == applied.author and head != oid


def _commits(repo: Repository) -> bool:
    """Return whether the sequence makes commits: no ``--no-commit``."""
    return "no-commit = true" not in state_files.text(repo.gitdir / state_files.SEQUENCER_OPTIONS)


def _is_committed(repo: Repository) -> bool:
    return not repo.git().run("diff-index", "--cached", "--quiet", "HEAD", "--", check=False).code


def _repeat(repo: Repository) -> None:
    """Repeat the first row of the list, because ``--continue`` skips one."""
    steps = _steps(repo)
    if steps[:1] != steps[1:2]:
        _add_first(repo.gitdir / state_files.SEQUENCER_TODO, steps[0])


def _steps(repo: Repository) -> list[str]:
    """Return the rows of ``sequencer/todo`` that name a commit."""
    rows = _rows(repo.gitdir / state_files.SEQUENCER_TODO)
    return [" ".join(words) for words in rows if len(words) > 1 and words[0] in _COMMANDS]


def mend_rebase(repo: Repository) -> None:
    """Restore a step that is in neither file; quit a rebase that git had not begun or had finished."""
    if not (repo.gitdir / state_files.REBASE_MERGE).is_dir():
        return
    if all(state_files.text(repo.gitdir / name) for name in _NEEDED):
        _complete(repo)
    else:
        repo.git().run("rebase", "--quit")


def mend_am(repo: Repository) -> None:
    """Make ``git am --abort`` work; quit an ``am`` that git had not begun or had finished."""
    place = repo.gitdir / state_files.REBASE_APPLY
    if not place.is_dir() or state_files.exists(repo.gitdir, *state_files.AM_OF_REBASE):
        return
    if not all(state_files.text(repo.gitdir / name) for name in state_files.AM_NEEDED):
        repo.git().run("am", "--quit")
        return
    author = repo.gitdir / state_files.AM_AUTHOR
    if author.exists() and not author.stat().st_size:
        _fs.remove(author)
    if _last_move(repo).startswith("am: "):
        _fs.write_atomic(repo.gitdir / state_files.AM_SAFETY, f"{repo.head()}\n".encode())


def _complete(repo: Repository) -> None:
    """Restore the step that is in neither file, unless the user edited the list."""
    first = _rows(repo.gitdir / state_files.REBASE_FIRST_TODO)
    done, todo = (_rows(repo.gitdir / name) for name in (state_files.REBASE_DONE, state_files.REBASE_TODO))
    lost = first[len(done) : len(done) + 1]
    if lost and _are_same([*done, *lost, *todo], first):
        _add_first(repo.gitdir / state_files.REBASE_TODO, " ".join(lost[0]))


def _are_same(steps: list[list[str]], first: list[list[str]]) -> bool:
    """Return whether ``steps`` are those of the ``first`` list, which may have short ids."""
    return len(steps) == len(first) and all(map(_is_same, steps, first))


def _is_same(step: list[str], other: list[str]) -> bool:
    same = [
        len(one) >= _DIGITS and one.startswith(two) for one, two in zip(step[1:2], other[1:2], strict=False)
    ]
    return step[0] == other[0] and (step[1:] == other[1:] or all(same))


def _add_first(place: Path, row: str) -> None:
    _fs.write_atomic(place, f"{row}\n{state_files.text(place)}".encode("utf-8", "surrogateescape"))


def _rows(place: Path) -> list[list[str]]:
    rows = (row.split() for row in split_lines(state_files.text(place)))
    return [words for words in rows if words and not words[0].startswith("#")]
