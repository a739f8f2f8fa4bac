"""Saving files that are in memory as a commit on a ref; index and worktree have no part in it."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, SupportsFloat

from theta.errors import RefusedError, UsageError
from theta.formats.layout import Source
from theta.git.quoting import split_lines
from theta.git.repository import Repository
from theta.porcelain.stage import saved_tree
from theta.porcelain.stage.commit_writer import CommitWriter
from theta.porcelain.stage.saved_tree import File, StoredFile
from theta.porcelain.workspace.session import Session
from theta.store.odb import stored_marks

_HEADS: Final = "refs/heads/"
_LONGEST: Final = 200
"""Bytes of a part of a new name, which is the name of a file: those of git's locks are longer."""
_MOST_STEPS: Final = 10**18
STEP: Final = "Theta-Step"
METRIC: Final = "Theta-Metric"


@dataclass(frozen=True)
class SaveRequest:
    """A commit of files that are in memory.

    Attributes:
        ref: the branch, or the full name of another ref; it is made where it is not there.
        files: path -> checkpoint, or the bytes of any other file; those that are not named stay as they are.
        message: the message; by default it names the step.
        step: the number of the training step.
        metrics: name -> value at this step.
        whole: the commit has these files alone.
    """

    ref: str
    files: Mapping[str, File]
    message: str = ""
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False

    def checked(self) -> SaveRequest:
        """Return the request with the values of step and metrics, which may be scalars of numpy and torch.

        Raises :class:`UsageError` for one that would not be read back, and for text that is no message.
        """
        metrics = {name: _checked(name, value) for name, value in self.metrics.items()}
        step = None if self.step is None else step_number(self.step)
        found = replace(self, metrics=metrics, step=step)
        try:
            text = found.text().encode()
        except UnicodeEncodeError as error:
            raise UsageError("a message is text that UTF-8 can hold") from error
        if b"\0" in text:
            raise UsageError("a message cannot have a NUL byte")
        return found

    def text(self) -> str:
        """Return the message with its trailers."""
        subject = self.message or (f"step {self.step}" if self.step is not None else "save")
        trailers = [f"{STEP}: {self.step}"] if self.step is not None else []
        trailers += [f"{METRIC}: {name}={_digits(value)}" for name, value in self.metrics.items()]
        return "\n".join([subject, *([""] if trailers else []), *trailers]) + "\n"


@dataclass(frozen=True)
class SaveResult:
    """A commit that was saved.

    Attributes:
        commit: its id.
        ref: the full name of the ref that it is on.
        parent: the commit that the ref named before; None when there was none.
        new: path -> names of the tensors that were stored; the others were known.
        stored: bytes that were written to the pack.
    """

    commit: str
    ref: str
    parent: str | None
    new: Mapping[str, tuple[str, ...]]
    stored: int


def save(
    session: Session,
    request: SaveRequest,
    writer: CommitWriter | None = None,
    follows: Callable[[Repository, str | None], None] = lambda *_: None,
) -> SaveResult:
    """Store the files of ``request``, commit them on top of its ref, and move the ref.

    Objects are durable before the ref moves, and the ref moves only if nobody else moved it.  A ``writer``
    that made commits before knows who commits.  ``follows`` is called with the commit that the ref names,
    under theta's lock, and may raise an error in place of saving.

    Raises:
        UsageError: there can be no such ref, or no such file.
        RefusedError: a worktree has the branch checked out.
    """
    repo = session.repo
    request = request.checked()
    with session.change() as change:
        ref = movable_ref(session, request.ref)
        parent = repo.refs.resolved(ref) if ref in repo.refs else None
        follows(repo, parent)
        made = saved_tree.write(session, change.pack, parent, request.files, whole=request.whole)
        stored = change.pack.size
        commit = (writer or CommitWriter()).write(session, change, made.tree, parent, request.text())
        change.move(ref, commit, parent or "", f"save: {split_lines(request.text())[0]}")
    stored_marks.drop(repo, (one.manifest for one in request.files.values() if isinstance(one, StoredFile)))
    return SaveResult(commit, ref, parent, made.new, stored)


def store(session: Session, name: str, path: str, file: Source) -> StoredFile:
    """Store a checkpoint in a pack of its own, for a commit on ref ``name`` that another process makes.

    Many processes may do it at once.  Until the commit a ref of theta names the objects, for two weeks at
    most; ``theta gc --prune=now`` refuses until the commit, or the end of this process.
    """
    repo = session.repo
    ref = _full(name)
    parent = repo.refs.resolved(ref) if ref in repo.refs else None
    with session.journal.beside_others(), _marked(repo) as marked:
        try:
            with session.objects.writing(keep=True) as pack:
                stored, tree = saved_tree.store(session, pack, parent, path, file)
            stored_marks.hold(repo, stored.manifest, tree)
        finally:
            session.objects.keeps.release()
        marked.append(stored.manifest)
    return stored


@contextlib.contextmanager
def _marked(repo: Repository) -> Iterator[list[str]]:
    """Mark that a checkpoint is being stored; the mark stays if the block appends the id of its manifest."""
    place, found = stored_marks.begin(repo), list[str]()
    try:
        yield found
    finally:
        stored_marks.end(place, found[0] if found else None)


def publish(session: Session, commit: str, name: str, subject: str) -> SaveResult:
    """Commit the files of ``commit`` on top of ref ``name``, whose other files stay.

    Step and metrics stay in the message.  Raises as :func:`save` does.
    """
    repo = session.repo
    with session.change() as change:
        ref = movable_ref(session, name)
        parent = repo.refs.resolved(ref) if ref in repo.refs else None
        tree = saved_tree.overlay(session, change.pack, parent, commit)
        text = f"{subject}\n{repo.commit(commit).message.partition(chr(10))[2]}"
        made = CommitWriter().write(session, change, tree, parent, text)
        change.move(ref, made, parent or "", f"publish: {subject}")
    return SaveResult(made, ref, parent, {}, 0)


def step_number(value: Any) -> int:
    """Return the number of a step; raises :class:`UsageError` for all but whole numbers.

    Another one would stand in the history and not be read back: the training would begin anew.
    """
    try:
        number = int(operator.index(value))
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"the number of a step is a whole one, not {value!r}") from error
    if abs(number) >= _MOST_STEPS:
        raise UsageError("the number of a step has 18 digits at most")
    return number


def metrics_of(given: Any) -> dict[str, float]:
    """Return the metrics that a program gave, None for none; their values are checked later.

    Raises :class:`UsageError` for what is no mapping.
    """
    try:
        return {} if given is None else dict(given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"metrics are numbers by their names, not {given!r}") from error


def _checked(name: str, value: Any) -> float:
    if not isinstance(name, str):
        raise UsageError(f"a metric is named by text, not by {name!r}")
    if not name or name != name.strip() or not {*"=\r\n"}.isdisjoint(name):
        raise UsageError(
            f"a metric cannot be named {name!r}", hint="a name has no '=' and no space at an end"
        )
    if type(value) is int:
        return value
    try:
        if isinstance(value, SupportsFloat) and not getattr(value, "ndim", 0):
            return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        pass
    raise UsageError(f"the metric {name} is {value!r}, not a number")


def _digits(value: float) -> str:
    """Return a number as :class:`float` reads it, with all its digits."""
    return repr(value if type(value) is int else float(value))


def _full(name: str) -> str:
    if not isinstance(name, str):
        raise UsageError(f"a ref is named by text, not by {name!r}")
    return name if name.startswith("refs/") else _HEADS + name


def require_possible(session: Session, ref: str) -> None:
    """Raise an error for what would fail when a commit is put on ``ref``, which :func:`movable_ref` returned.

    Raises :class:`UsageError` where a ref that is there is a folder of this one, or the other way round, and
    for a name that is longer than that of a file may be.
    """
    longest = max(len(part.encode("utf-8", "surrogateescape")) for part in ref.split("/"))
    if longest > _LONGEST and ref not in session.repo.refs:
        raise UsageError(f"a part of the name of a ref may have {_LONGEST} bytes, not {longest}")
    for other in session.repo.refs:
        if other.startswith(f"{ref}/") or ref.startswith(f"{other}/"):
            raise UsageError(
                f"{ref} cannot be beside {other}", hint="a name cannot go on where another one ends with '/'"
            )


def movable_ref(session: Session, name: str) -> str:
    """Return the full name of a ref that may be moved behind the back of all worktrees.

    Raises:
        UsageError: there can be no such ref.
        RefusedError: a worktree has the branch checked out.
    """
    ref = _full(name)
    refs = session.repo.refs
    branch = ref.removeprefix(_HEADS)
    if not refs.is_valid(ref) or branch in ("HEAD", "@") or branch.startswith("-"):
        raise UsageError(f"a {'ref' if name.startswith('refs/') else 'branch'} cannot be named {name!r}")
    if ref in refs.checked_out():
        raise RefusedError(
            f"{name} is checked out; its files would no longer be those of its commit",
            hint="save to another branch, or write the file and commit it",
        )
    return ref
