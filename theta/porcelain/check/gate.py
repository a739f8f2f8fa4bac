"""``theta check``: all rules on each checkpoint of a version, or of some files."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from theta.errors import NotFoundError, ThetaError, UsageError
from theta.porcelain.check import beside_rules, check_rules, form_rules, value_rules
from theta.porcelain.check.check_rules import CheckRules
from theta.porcelain.check.findings import BrokenRule
from theta.porcelain.check.value_rules import Former
from theta.porcelain.check.version_files import RevisionFiles, VersionFiles, WorktreeFiles, models
from theta.porcelain.tensors.converting import Model
from theta.porcelain.workspace.session import Session
from theta.progress import Progress, begin
from theta.units import human


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
    """The findings in order of path, and what was checked."""

    findings: tuple[BrokenRule, ...]
    paths: tuple[str, ...]
    tensors: int
    nbytes: int


@dataclass
class _Gate:
    rules: CheckRules
    now: VersionFiles
    before: VersionFiles | None
    progress: Progress | None
    tensors: int = 0
    nbytes: int = 0

    def check(self, path: str) -> Iterator[BrokenRule]:
        """Yield all that is wrong with one checkpoint."""
        yield from self._try("shards", path, lambda: beside_rules.shards(path, self.now))
        yield from self._try("unreadable", path, lambda: beside_rules.pickles(path, self.now))
        if self.before is not None:
            yield from beside_rules.licence(path, self.now, self.before)
        yield from self._try("unreadable", path, lambda: self._model(path))

    def _try(self, rule: str, path: str, work: Callable[[], Iterator[BrokenRule]]) -> Iterator[BrokenRule]:
        """Yield the findings of ``work``, and a finding of ``rule`` for what cannot be read."""
        try:
            yield from work()
        except ThetaError as error:
            yield BrokenRule(rule, path, "", str(error))

    def _model(self, path: str) -> Iterator[BrokenRule]:
        with contextlib.ExitStack() as stack:
            model, before = self.now.model(path, stack), self._before(path, stack)
            around = beside_rules.surroundings(self.now, path)
            self.tensors += len(model.values)
            begin(self.progress, "checking", sum(value.nbytes for value in model.values.values()), path)
            if before is not None:
                yield from beside_rules.metadata(path, model.metadata, before.metadata)
            yield from form_rules.check(path, model.values, before.values if before else None, around)
            pair = form_rules.tied(model.values, around)
            digests = dict.fromkeys(pair or (), b"")
            yield from self._values(path, model, before, digests)
            if pair is not None and len({*digests.values()}) > 1:
                yield BrokenRule("tie", path, pair[1], f"config.json ties it to {pair[0]}, and they differ")
            model.verify()

    def _before(self, path: str, stack: contextlib.ExitStack) -> Model | None:
        if self.before is None or not self.before.files(path):
            return None
        with contextlib.suppress(ThetaError):
            return self.before.model(path, stack)
        return None

    def _values(
        self, path: str, model: Model, before: Model | None, digests: dict[str, bytes]
    ) -> Iterator[BrokenRule]:
        """Yield what is wrong with the values, each read once; fill in the keys of ``digests``."""
        for name, value in model.values.items():
            old = before.values.get(name) if before is not None else None
            digest = hashlib.sha256(f"{value.dtype} {value.shape}".encode()) if name in digests else None
            yield from value_rules.check(path, name, value, Former(old, self.rules.budget(name)), digest)
            if digest is not None:
                digests[name] = digest.digest()
            self.nbytes += value.nbytes
            if self.progress is not None:
                self.progress(value.nbytes)


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
    if session is not None and commit is not None:
        now: VersionFiles = RevisionFiles(session, commit)
        paths = list(models(session.at(commit)))
    else:
        now, paths = WorktreeFiles(root, session), list(_paths(session, request.names, cwd, root))
    gate = _Gate(rules, now, _before(session, commit, request.against), progress)
    found = [finding for path in paths for finding in gate.check(path)]
    if session is not None and commit is not None and rules.size is not None:
        found += _size(session, commit, rules.size)
    kept = (one for one in found if not rules.is_ignored(one.rule, one.path, one.tensor))
    return CheckResult(tuple(kept), tuple(paths), gate.tensors, gate.nbytes)


def _commit(session: Session | None, names: Sequence[str], cwd: Path) -> str | None:
    """Return the commit that the line names; None when it names files, or nothing."""
    if session is None or not names or (cwd / names[0]).exists():
        return None
    oid = session.repo.commit_of(names[0])
    if oid is not None and len(names) > 1:
        raise UsageError("check one revision, or files")
    return oid


def _paths(session: Session | None, names: Sequence[str], cwd: Path, root: Path) -> Iterator[str]:
    """Yield the checkpoints that ``names`` name, from ``root``; all tracked ones for no names."""
    if not names:
        if session is None:
            raise UsageError("name the files to check; there is no repository here")
        yield from models(session.index.readable)
        return
    for name in names:
        place = cwd / name
        if not place.exists() and not WorktreeFiles(root, session).files(_from(root, place)):
            raise NotFoundError(f"{name} is neither a file nor a revision")
        yield _from(root, place)


def _from(root: Path, place: Path) -> str:
    try:
        return (place.parent.resolve() / place.name).relative_to(root.resolve()).as_posix()
    except ValueError as error:
        raise UsageError(f"{place} is outside of {root}") from error


def _before(session: Session | None, commit: str | None, against: str | None) -> VersionFiles | None:
    if session is None:
        return None
    if against is not None:
        oid = session.repo.commit_of(against)
        if oid is None:
            raise NotFoundError(f"there is no commit {against}")
    else:
        oid = session.repo.head() if commit is None else next(iter(session.repo.commit(commit).parents), None)
    return RevisionFiles(session, oid) if oid is not None else None


def _size(session: Session, commit: str, most: int) -> Iterator[BrokenRule]:
    """Yield a finding if the objects that ``commit`` has and its parents do not are too many bytes."""
    words = ("rev-list", "--objects", "--disk-usage", commit, "--not", *session.repo.commit(commit).parents)
    stored = int(session.repo.git().run(*words).text)
    if stored > most:
        yield BrokenRule("size", "", "", f"{commit[:12]} stores {human(stored)}; the budget is {human(most)}")
