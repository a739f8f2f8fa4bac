"""Commits written anew with other trees: authors, dates and messages stay, signatures do not fit any more."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from theta.errors import RefusedError
from theta.git import state_files
from theta.git.object_format import TAG
from theta.git.object_values import Commit
from theta.git.quoting import shell_word, split_lines
from theta.git.repository import Repository
from theta.porcelain.workspace.session import Change, Session

TreeOf = Callable[[Change, Commit, Sequence[str]], str]
"""Returns the new tree of a commit, given the new trees of its parents."""

KEPT: Final = "refs/theta/before-migration/"
"""The namespace in which the refs of the old history stay."""
_BRANCHES: Final = ("refs/heads", "refs/tags")
_UNFIT: Final = (b"gpgsig", b"gpgsig-sha256", b"mergetag")
"""Headers that sign the bytes of the old commit, or of a tag that names one."""
_SIGNED: Final = re.compile(
    rb"^-----BEGIN (?:PGP SIGNATURE|PGP MESSAGE|SSH SIGNATURE|SIGNED MESSAGE)-----", re.MULTILINE
)
_SIGNATURE_END: Final = re.compile(rb"^-----END [A-Z ]+-----\s*\Z", re.MULTILINE)


@dataclass(frozen=True)
class Rewritten:
    """Commits and refs of a new history: old id -> new id, and ref -> its old and its new object.

    ``head`` is what becomes of the commit at HEAD.
    """

    commits: Mapping[str, str]
    refs: Mapping[str, tuple[str, str]]
    head: str


def refs_of(session: Session) -> dict[str, str]:
    """Return ref -> object of all local branches and tags, and of a detached HEAD.

    Symbolic refs are left out: they follow the refs that they name.
    """
    form = "--format=%(refname) %(objectname) %(symref)"
    rows = split_lines(session.repo.git().run("for-each-ref", form, *_BRANCHES).text)
    found = {name: oid for name, oid, symref in (row.split(" ") for row in rows) if not symref}
    return found | ({"HEAD": session.repo.resolve("HEAD")} if session.repo.is_detached else {})


def commits_of(session: Session, tips: Iterable[str]) -> list[str]:
    """Return the commits that ``tips`` reach, parents first.

    Raises :class:`RefusedError` in a shallow clone, whose history has no beginning.
    """
    repo = session.repo
    if (repo.commondir / "shallow").exists():
        raise RefusedError("this clone is shallow", hint="'git fetch --unshallow' fetches its whole history")
    tips = list(dict.fromkeys(tips))
    if not tips:
        return []
    asked = "".join(f"{tip}\n" for tip in tips).encode()
    return repo.git().run("rev-list", "--topo-order", "--reverse", "--stdin", stdin=asked).text.split()


def refuse_second(session: Session) -> None:
    """Raise :class:`RefusedError` when an earlier migration left its refs below :data:`KEPT`."""
    if any(name.startswith(KEPT) for name in session.repo.refs.all_resolved()):
        raise RefusedError(
            f"{KEPT} still has the history before an earlier migration",
            hint=f"'git for-each-ref {KEPT}' lists it; delete it once it is not wanted",
        )


def refuse_elsewhere(session: Session) -> None:
    """Raise :class:`RefusedError` when another worktree has a branch, or an operation in progress.

    Only the branch would move there; the next commit would take all back.
    """
    repo = session.repo
    for gitdir in (repo.commondir, *repo.commondir.glob("worktrees/*")):
        if not gitdir.samefile(repo.gitdir):
            _refuse_busy(repo, gitdir)


def _refuse_busy(repo: Repository, gitdir: Path) -> None:
    git, place = repo.git(), _place(gitdir)
    if state_files.sequencing(gitdir) or state_files.exists(gitdir, state_files.BISECT_START):
        raise RefusedError(
            f"an operation is in progress in {place}", hint="end it; then run the command again"
        )
    named = git.run(f"--git-dir={gitdir}", "symbolic-ref", "-q", "--short", "HEAD", check=False).text.strip()
    is_bare = git.run(f"--git-dir={gitdir}", "rev-parse", "--is-bare-repository", check=False).text.strip()
    if named and (is_bare != "true" or gitdir != repo.commondir):
        hint = (
            f"'git -C {shell_word(place)} switch --detach' lets go of it, 'git worktree prune' of lost ones"
        )
        raise RefusedError(f"{named} is checked out in {place}, and would move", hint=hint)


def _place(gitdir: Path) -> str:
    """Return the worktree whose git directory is ``gitdir``."""
    return str(Path(state_files.text(gitdir / "gitdir").strip() or gitdir).parent)


def rewrite(session: Session, change: Change, refs: Mapping[str, str], tree_of: TreeOf) -> Rewritten:
    """Write all commits of ``refs`` anew, with the trees that ``tree_of`` gives; no ref moves yet.

    A commit whose tree and parents stay keeps its id, and its signature.
    """
    made: dict[str, str] = {}
    trees: dict[str, str] = {}
    repo = session.repo
    for oid in commits_of(session, refs.values()):
        commit = repo.commit(oid)
        parents = [made[parent] for parent in commit.parents]
        tree = trees[oid] = tree_of(change, commit, [trees[parent] for parent in commit.parents])
        if (tree, tuple(parents)) == (commit.tree, commit.parents):
            made[oid] = oid
        else:
            made[oid] = change.pack.commit(rewritten_bytes(commit.data, tree, parents))
    new = {ref: (old, _moved(session, change, old, made)) for ref, old in refs.items()}
    change.store()
    head, moved = repo.resolve("HEAD"), {ref: pair for ref, pair in new.items() if pair[0] != pair[1]}
    return Rewritten(made, moved, made.get(head, head))


def rewritten_bytes(data: bytes, tree: str, parents: Sequence[str]) -> bytes:
    """Return the bytes of a commit with another tree and other parents; all else but signatures stays."""
    head, blank, message = data.partition(b"\n\n")
    kept = _without(head, (b"tree", b"parent", *_UNFIT))
    first = [b"tree " + tree.encode(), *(b"parent " + parent.encode() for parent in parents)]
    return b"\n".join([*first, *kept]) + blank + message


def _without(head: bytes, names: Collection[bytes]) -> list[bytes]:
    """Return the rows of the headers but those of ``names``."""
    kept, skipping = list[bytes](), False
    for row in head.split(b"\n"):
        if not row.startswith(b" "):  # else it is the rest of the header above
            skipping = row.partition(b" ")[0] in names
        kept += [] if skipping else [row]
    return kept


def _moved(session: Session, change: Change, oid: str, made: Mapping[str, str]) -> str:
    """Return what becomes of the object of a ref: a commit, a tag of one, or something else that stays."""
    if oid in made:
        return made[oid]
    found = session.repo.backend.objects.read(oid)
    if found is None or found[0] != TAG:
        return oid
    head, blank, message = found[1].partition(b"\n\n")
    target = head.partition(b"\n")[0].removeprefix(b"object ").decode("ascii")
    new = _moved(session, change, target, made)
    if new == target:
        return oid
    rows = [b"object " + new.encode(), *_without(head, (b"object", *_UNFIT))]
    return session.repo.backend.objects.write(TAG, b"\n".join(rows) + blank + unsigned(message))


def unsigned(message: bytes) -> bytes:
    """Return the message of a tag without the signature at its end.

    It begins at a line, the last one of its kind, and ends the message (parse_signature of gpg-interface.c).
    """
    begin = max((found.start() for found in _SIGNED.finditer(message)), default=-1)
    ends = _SIGNATURE_END.search(message, max(begin, 0))
    return message[:begin] if begin >= 0 and ends else message


def move(session: Session, rewritten: Rewritten, reason: str) -> None:
    """Move all refs at once, if nobody else moved one; the old ones stay below :data:`KEPT`."""
    rows = []
    for ref, (old, new) in rewritten.refs.items():
        rows.append(f"create {KEPT}{ref.removeprefix('refs/')} {old}\n")
        rows.append(f"update {ref} {new} {old}\n")
    if rows:
        git = session.repo.git()
        git.run("update-ref", "--create-reflog", "-m", reason, "--stdin", stdin="".join(rows).encode())
