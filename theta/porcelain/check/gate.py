"""``theta check``: all rules on each checkpoint of a version, or of some files."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from theta.errors import NotFoundError, NotHereYetError, ThetaError, UsageError
from theta.formats import sharded
from theta.lazy import Module
from theta.porcelain.check import announcing, beside_rules, check_rules, form_rules, value_rules
from theta.porcelain.check.check_rules import CheckRules
from theta.porcelain.check.findings import BrokenRule
from theta.porcelain.check.value_rules import CheckedValue, Demand
from theta.porcelain.check.version_files import RevisionFiles, VersionFiles, WorktreeFiles, models
from theta.porcelain.tensors.converting import Model
from theta.porcelain.workspace import coverage
from theta.porcelain.workspace.checkpoints import Checkpoints, tracked_in
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.units import human

if TYPE_CHECKING:
    from theta.porcelain.check import value_parts
    from theta.porcelain.check.value_parts import ValueWorkers
else:
    value_parts = Module("theta.porcelain.check.value_parts")

_GONE = "the version before has this checkpoint"
_PLAIN = "it is stored as plain bytes, not as a checkpoint; 'theta add' and a commit mend it"


@dataclass(frozen=True)
class CheckRequest:
    """The files or the revision to check.

    Attributes:
        names: files, relative to the current folder, or one revision; nothing for all checkpoints of the
            worktree.
        against: the revision that counts as the version before; None for HEAD, and for the first parent
            of a revision.
        rules: what the command line adds to ``.theta.toml``.
    """

    names: Sequence[str] = ()
    against: str | None = None
    rules: CheckRules = field(default_factory=CheckRules)


@dataclass(frozen=True)
class CheckResult:
    """The findings in order of path, and what was checked.

    ``files`` is path -> a file of the checkpoint, for those that are models in shards; ``notes`` tell what
    could not be checked.
    """

    findings: tuple[BrokenRule, ...]
    paths: tuple[str, ...]
    tensors: int
    nbytes: int
    files: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class _Gate:
    session: Session | None
    rules: CheckRules
    now: VersionFiles
    before: VersionFiles | None
    progress: Progress | None
    old_paths: Mapping[str, str] = field(default_factory=dict)
    announced: Mapping[str, int] = field(default_factory=dict)
    nbytes: int = 0
    names: set[str] = field(default_factory=set)
    tensors: int = 0

    def check(self, path: str) -> Iterator[BrokenRule]:
        """Yield all that is wrong with one checkpoint."""
        yield from self._try("shards", path, lambda: beside_rules.shards(path, self.now))
        yield from self._try("unreadable", path, lambda: beside_rules.pickles(path, self.now))
        if self.before is not None:
            yield from beside_rules.licence(path, self.now, self.before)
        yield from self._try("unreadable", path, lambda: self._model(path))

    def loose(self, checked: Iterable[str]) -> Iterator[BrokenRule]:
        """Yield what is dangerous in files that are no checkpoints, such as the state of a trainer."""
        known = {file for path in checked for file in self.now.files(path)}
        for path in self.now.pickled():
            if path not in known:
                yield from self._try(
                    "unreadable", path, functools.partial(beside_rules.pickles, path, self.now)
                )

    def _try(self, rule: str, path: str, work: Callable[[], Iterator[BrokenRule]]) -> Iterator[BrokenRule]:
        """Yield the findings of ``work``, and a finding of ``rule`` for what cannot be read."""
        try:
            yield from work()
        except ThetaError as error:
            yield BrokenRule(rule, path, "", str(error))

    def _model(self, path: str) -> Iterator[BrokenRule]:
        with contextlib.ExitStack() as stack:
            model, before = self.now.model(path, stack), None
            try:
                before = self._before(self.old_paths.get(path, path), stack)
            except ThetaError as error:
                yield BrokenRule("unreadable", path, "", f"the version before: {error}")
            around = beside_rules.surroundings(self.now, path)
            self.tensors += len(model.values)
            self.names.update(model.values)
            begin(self.progress, "checking", sum(_sizes(model).values()), path)
            if before is not None:
                yield from beside_rules.metadata(path, model.metadata, before.metadata)
            yield from form_rules.check(path, model.values, before.values if before else None, around)
            yield from self._values(path, model, before, form_rules.tied(model.values, around))
            model.verify()

    def _before(self, path: str, stack: contextlib.ExitStack) -> Model | None:
        if self.before is None or not self.before.files(path):
            return None
        return self.before.model(path, stack)

    def _values(
        self, path: str, model: Model, before: Model | None, pair: tuple[str, str] | None
    ) -> Iterator[BrokenRule]:
        """Yield what is wrong with the values, each read once; those of ``pair`` are to be the same."""
        digests: set[bytes] = set()
        demands = {name: Demand(self.rules.budget(name), name in (pair or ())) for name in model.values}
        workers = self._workers(path, model, before)
        for name, found in (
            self._by_threads(path, model, before, demands)
            if workers is None
            else workers.checked(_sizes(model), demands, self.progress)
        ):
            yield from found.findings
            digests |= {found.digest} - {b""}
            self.nbytes += model.values[name].nbytes
        if pair is not None and len(digests) > 1:
            yield BrokenRule("tie", path, pair[1], f"config.json ties it to {pair[0]}, and they differ")

    def _by_threads(
        self, path: str, model: Model, before: Model | None, demands: Mapping[str, Demand]
    ) -> Iterator[tuple[str, CheckedValue]]:
        for name, value in model.values.items():
            old = before.values.get(name) if before is not None else None
            yield name, value_rules.checked(path, name, value, old, demands[name])
            if self.progress is not None:
                self.progress(value.nbytes)

    def _workers(self, path: str, model: Model, before: Model | None) -> ValueWorkers | None:
        """Return the workers of the repository's engine, if it has one and there is much to read."""
        session = self.session
        engine = session.engine(sum(_sizes(model).values())) if session is not None else None
        if session is None or engine is None:
            return None
        with contextlib.suppress(NotHereYetError):  # who misses an object of a tensor says so
            session.objects.obtain(self.announced)
        now, old = value_parts.CheckedSide(self.now.place, path), None
        if before is not None and self.before is not None:
            old = value_parts.CheckedSide(self.before.place, self.old_paths.get(path, path))
        return value_parts.ValueWorkers(engine, session.objects, now, old)


def check(
    session: Session | None, request: CheckRequest, cwd: Path, progress: Progress | None = None
) -> CheckResult:
    """Check what ``request`` names; nothing is changed, and of a partial clone what is read is fetched.

    Raises :class:`NotFoundError` for a name that is neither a file nor a revision, and :class:`UsageError`
    for rules that cannot be read.
    """
    root = session.repo.worktree if session is not None and not session.repo.is_bare else cwd
    rules = check_rules.of_file(root).joined(request.rules)
    commit = _commit(session, request.names, cwd)
    before, notes = _before(session, commit, request.against)
    announced = announcing.expect(session, commit, before, rules) if session is not None else {}
    if session is not None and commit is not None:
        now: VersionFiles = RevisionFiles(session, commit)
        paths = list(models(session.at(commit)))
    else:
        now, paths = (
            WorktreeFiles(root, session),
            list(dict.fromkeys(_paths(session, request.names, cwd, root))),
        )
    whole = not request.names or commit is not None
    moved = _moved(session, commit, before) if whole else {}
    old = RevisionFiles(session, before) if session is not None and before is not None else None
    old_paths = {new: path for path, new in moved.items() if new}
    gate = _Gate(session, rules, now, old, progress, old_paths, announced)
    with session.engaged() if session is not None else contextlib.nullcontext():
        found = [finding for path in paths for finding in gate.check(path)]
    found += gate.loose(paths) if whole else ()
    unread = list(_unread(session, commit)) if session is not None and whole else []
    there = {sharded.model_of(one.path) for one in unread}
    gone = (path for path, new in moved.items() if not new and path not in there)
    found += [*unread, *(BrokenRule("missing", path, "", _GONE) for path in gone)]
    if session is not None and commit is not None and rules.size is not None:
        found += _size(session, commit, rules.size)
    elif rules.size is not None:
        notes.append("the budget of size is for commits: theta check REV")
    notes += [f"no tensor is called {glob}" for glob in rules.unused(gate.names)]
    kept = (one for one in found if not rules.is_ignored(one.rule, one.path, one.tensor))
    files = {path: next(iter(now.files(path)), path) for path in paths}
    return CheckResult(tuple(kept), tuple(paths), gate.tensors, gate.nbytes, files, tuple(notes))


def _sizes(model: Model) -> dict[str, int]:
    return {name: value.nbytes for name, value in model.values.items()}


def _moved(session: Session | None, commit: str | None, before: str | None) -> dict[str, str]:
    """Return the checkpoints of the version before that are gone -> their new paths, "" for none.

    A checkpoint has a new path where a new one has at least half of its tensors' names.
    """
    if session is None or before is None:
        return {}
    was, now = session.at(before), session.at(commit) if commit is not None else session.index.readable
    gone = {path: _names(was, path) for path in {*models(was)} - {*models(now)}}
    come = {path: _names(now, path) for path in {*models(now)} - {*models(was)}}
    found = {}
    for path, names in sorted(gone.items()):
        best = max(come, key=lambda new: len(names & come[new]), default="")
        found[path] = best if best and 2 * len(names & come[best]) >= len(names) else ""
    return found


def _unread(session: Session, commit: str | None) -> Iterator[BrokenRule]:
    """Yield what stands at the paths of checkpoints and is none, which no other rule can look at."""
    if commit is not None:
        tracked = tracked_in(session.repo, session.repo.tree_of(commit))
        reasons = dict.fromkeys(tracked - session.at(commit).keys(), _PLAIN)
    else:
        staged = session.index
        known = staged.manifests
        reasons = {path: _reason(session, one.oid) for path, one in staged.items() if path not in known}
        reasons |= dict.fromkeys(staged.conflicts, "it is in conflict; 'theta resolve' settles it")
    yield from (BrokenRule("unreadable", path, "", reasons[path]) for path in sorted(reasons))


def _reason(session: Session, oid: str) -> str:
    if (error := session.malformed(oid)) is not None:
        return str(error)
    is_pointer = coverage.is_pointer(session.repo, oid)
    return "it is a pointer of Git LFS, not the file itself" if is_pointer else _PLAIN


def _names(side: Checkpoints, path: str) -> set[str]:
    manifests = (side.manifest(file) for file in side if file == path or sharded.model_of(file) == path)
    return {line.name for manifest in manifests if manifest is not None for line in manifest.lines}


def _commit(session: Session | None, names: Sequence[str], cwd: Path) -> str | None:
    """Return the commit that the line names; None when it names files, or nothing."""
    if session is None or not names or (cwd / names[0]).exists():
        return None
    oid = session.repo.commit_of(names[0])
    if oid is not None and len(names) > 1:
        raise UsageError("check one revision, or files")
    return oid


def _paths(session: Session | None, names: Sequence[str], cwd: Path, root: Path) -> Iterator[str]:
    """Yield the checkpoints that ``names`` name, from ``root``; all tracked ones for no names.

    A shard and an index stand for their model, a folder for the tracked checkpoints below it.
    """
    tracked = list(models(session.index.readable)) if session is not None else []
    if not names and session is None:
        raise UsageError("name the files to check; there is no repository here")
    yield from tracked if not names else ()
    files = WorktreeFiles(root, session)
    for name in names:
        path = _from(root, cwd / name)
        if (cwd / name).is_dir():
            below = [one for one in tracked if path == "." or one.startswith(f"{path}/")]
            if not below:
                raise NotFoundError(f"no checkpoint below {name} is tracked", hint="name the files")
            yield from below
            continue
        model = sharded.model_of(path.removesuffix(sharded.SUFFIX))
        if not (cwd / name).exists() and not files.files(path):
            raise NotFoundError(f"{name} is neither a file nor a revision")
        yield model


def _from(root: Path, place: Path) -> str:
    """Return the path from ``root``; one that is outside of it stays absolute."""
    there = place.parent.resolve() / place.name
    inside = root.resolve()
    return (there.relative_to(inside) if there.is_relative_to(inside) else there).as_posix()


def _before(session: Session | None, commit: str | None, against: str | None) -> tuple[str | None, list[str]]:
    """Return the commit that counts as the version before, None for none, and what to tell of it."""
    if session is None:
        return None, []
    if against is not None:
        if (oid := session.repo.commit_of(against)) is None:
            raise NotFoundError(f"there is no commit {against}")
        return oid, []
    if commit is None:
        return session.repo.head(), []
    parent = next(iter(session.repo.commit(commit).parents), None)
    if parent is not None and session.repo.commit_of(parent) is None:
        return None, [f"the version before, {parent[:12]}, is not in this shallow clone: nothing is compared"]
    return parent, []


def _size(session: Session, commit: str, most: int) -> Iterator[BrokenRule]:
    """Yield a finding if the objects that ``commit`` has and its parents do not are too many bytes."""
    words = ("rev-list", "--objects", "--disk-usage", commit, "--not", *session.repo.commit(commit).parents)
    stored = int(session.repo.git().run(*words).text)
    if stored > most:
        yield BrokenRule(
            "size", check_rules.FILE, "", f"{commit[:12]} stores {human(stored)}; the budget is {human(most)}"
        )
