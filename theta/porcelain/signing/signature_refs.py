"""Places of signatures: ``refs/theta/signatures/COMMIT`` names a commit whose tree has them.

``statement.json`` is what git's own signature is of, that of the commit; ``KEY.sig`` is a bundle of Model
Signing.  Each signature is a commit on top of those before it, so that two of them never replace each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from theta.errors import BadSignatureError
from theta.git.run import Git, GitFailedError
from theta.porcelain.signing.statements import MOST
from theta.porcelain.workspace.session import Session

REFS: Final = "refs/theta/signatures/"
STATEMENT: Final = "statement.json"
SUFFIX: Final = ".sig"
_MOST_SIGNATURES: Final = 64


@dataclass(frozen=True)
class KeptSignature:
    """One signature: the commit that brought it, its file there, and the content of that."""

    commit: str
    name: str
    content: bytes


def head(session: Session, commit: str) -> str | None:
    """Return the newest signature commit of ``commit``; None when there is none."""
    done = session.repo.git().run("rev-parse", "-q", "--verify", f"{REFS}{commit}^{{commit}}", check=False)
    return done.text.strip() or None


def read(session: Session, commit: str) -> Iterator[KeptSignature]:
    """Yield the signatures of ``commit``, newest first.

    Raises :class:`BadSignatureError` for a huge one, and for more commits than are read: those below would
    be hidden.
    """
    now = head(session, commit)
    for _ in range(_MOST_SIGNATURES):
        if now is None:
            return
        parents = session.repo.commit(now).parents
        before = _blobs(session, parents[0]) if parents else {}
        for name, oid in _blobs(session, now).items():
            if name == STATEMENT or before.get(name) != oid:
                yield KeptSignature(now, name, _content(session, oid))
        now = parents[0] if parents else None
    if now is not None:
        raise BadSignatureError(f"{REFS}{commit} has more than {_MOST_SIGNATURES} commits")


def keep(session: Session, commit: str, files: Mapping[str, bytes], *, by_git: bool) -> str:
    """Keep files as a new signature of ``commit``, signed by git if asked for; return its commit."""
    git = session.repo.git()
    with session.journal.exclusive():
        parent = head(session, commit)
        kept = {} if parent is None else {n: o for n, o in _blobs(session, parent).items() if n != STATEMENT}
        kept |= {name: session.repo.write_blob(content) for name, content in files.items()}
        rows = "".join(f"100644 blob {oid}\t{name}\n" for name, oid in sorted(kept.items()))
        tree = git.run("mktree", stdin=rows.encode()).text.strip()
        words = [*(["-p", parent] if parent else []), *(["-S"] if by_git else []), "-m", f"Sign {commit}"]
        made = _committed(git, words, tree)
        nothing = "0" * len(made)
        git.run("update-ref", "-m", "theta sign", f"{REFS}{commit}", made, parent or nothing)
    return made


def _committed(git: Git, words: Sequence[str], tree: str) -> str:
    """Make a commit; git's error is about the key that it lacks, more often than not."""
    done = git.run("commit-tree", *words, tree, check=False)
    if done.code:
        keyed = "git signs with user.signingKey (git config gpg.format ssh|openpgp); --key FILE needs no git"
        said = done.stderr.decode("utf-8", "replace")
        raise GitFailedError("commit-tree", done.code, said, hint=keyed if "-S" in words else "")
    return done.text.strip()


def _blobs(session: Session, commit: str) -> dict[str, str]:
    tree = session.repo.tree_of(commit)
    return {entry.name: entry.id for entry in tree if entry.is_file and _is_known(entry.name)}


def _is_known(name: str) -> bool:
    return name == STATEMENT or name.endswith(SUFFIX)


def _content(session: Session, oid: str) -> bytes:
    if session.objects.size(oid) > MOST:
        raise BadSignatureError("a signature of over 256 MB is not read")
    return session.repo.read_blob(oid)
