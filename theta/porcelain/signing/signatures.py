"""``theta sign`` and ``theta verify``: signatures of a commit, of its files and of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from theta.errors import BadSignatureError, NotFoundError, NotSignedError
from theta.porcelain.signing import contents, git_signatures, signature_refs, sigstore_bundles, statements
from theta.porcelain.signing.signature_refs import STATEMENT, KeptSignature
from theta.porcelain.signing.statements import Statement
from theta.porcelain.signing.verdicts import SignatureState, SignatureVerdict
from theta.porcelain.workspace.session import Session
from theta.progress import Progress

_MODEL: Final = "model signature"


@dataclass(frozen=True)
class SignRequest:
    """The commit to sign, and how.

    Attributes:
        revision: the commit.
        key: a PEM private key on P-256, P-384 or P-521; None to have git sign, as it is configured.
        password: of the key.
    """

    revision: str
    key: Path | None = None
    password: str | None = None


@dataclass(frozen=True)
class Signed:
    """A signature that was made: of which commit, by which key, of how many files and tensors."""

    commit: str
    signer: str
    files: int
    tensors: int
    bundle: bytes | None


@dataclass(frozen=True)
class VerifyRequest:
    """The commit to verify, and against what.

    Attributes:
        revision: the commit.
        key: a PEM public key; None to verify git's own signatures only.
        bundle: a bundle that stands in a file; None for those that the repository keeps.
        worktree: compare the files of the worktree with what was signed, not the commit.
    """

    revision: str
    key: Path | None = None
    bundle: bytes | None = None
    worktree: bool = False


@dataclass(frozen=True)
class Verified:
    """The verdicts on all signatures of a commit; ``by_key``: only those of the given key count as good."""

    commit: str
    found: tuple[SignatureVerdict, ...]
    by_key: bool

    @property
    def is_bad(self) -> bool:
        """Whether a signature, or what was signed, is not as it was."""
        return any(one.state is SignatureState.BAD for one in self.found)

    @property
    def is_good(self) -> bool:
        """Whether a signature that counts is good, and none is bad."""
        counting = (one for one in self.found if one.what == _MODEL or not self.by_key)
        return not self.is_bad and any(one.state is SignatureState.GOOD for one in counting)


def sign(session: Session, request: SignRequest, progress: Progress | None = None) -> Signed:
    """Sign the digests of all files and tensors of a commit; the signature is kept in the repository.

    Raises :class:`UsageError` for a key that cannot be used, and git's error if git cannot sign.
    """
    commit = _commit(session, request.revision)
    key = None if request.key is None else sigstore_bundles.private_key(request.key, request.password)
    statement = contents.of_commit(session, commit, progress)
    payload = statement.encoded()
    count = sum(map(len, statement.tensors.values()))
    if key is None:
        signature_refs.keep(session, commit, {STATEMENT: payload}, by_git=True)
        return Signed(commit, "git", len(statement.files), count, None)
    bundle, name = sigstore_bundles.signed(payload, key), sigstore_bundles.hint_of(key.public_key())
    signature_refs.keep(session, commit, {f"{name}{signature_refs.SUFFIX}": bundle}, by_git=False)
    return Signed(commit, name, len(statement.files), count, bundle)


def verify(session: Session, request: VerifyRequest, progress: Progress | None = None) -> Verified:
    """Return the verdicts on all signatures of a commit, with the digests of all that they sign compared.

    Raises :class:`NotSignedError` if there is no signature.
    """
    commit = _commit(session, request.revision)
    key = None if request.key is None else sigstore_bundles.public_key(request.key)

    @cache
    def committed() -> Statement:
        return contents.of_commit(session, commit, progress)

    def compared(signed: Statement) -> tuple[str, ...]:
        if request.worktree and signed.commit in ("", commit):
            found = contents.of_worktree(session, commit, signed, progress)
        else:
            found = committed()
        return tuple(signed.differences(found))

    if request.bundle is not None:
        found = [_of_bundle(request.bundle, key, compared)]
    else:
        found = [
            *git_signatures.of_commit(session, commit, "commit"),
            *git_signatures.of_tags(session, commit),
        ]
        if request.worktree:  # git signed the id of the commit, hence all that it has
            found = [_concluded(one, lambda: committed().encoded(), compared) for one in found]
        found += _kept(session, commit, key, compared)
    if not found:
        raise NotSignedError(f"{request.revision} is not signed", hint="theta sign [REV] [--key FILE]")
    return Verified(commit, tuple(found), key is not None)


def _commit(session: Session, revision: str) -> str:
    oid = session.repo.commit_of(revision)
    if oid is None:
        raise NotFoundError(f"there is no commit {revision}")
    return oid


Compare = Callable[[Statement], tuple[str, ...]]


def _kept(session: Session, commit: str, key: Any, compared: Compare) -> Iterator[SignatureVerdict]:
    for one in signature_refs.read(session, commit):
        if one.name == STATEMENT:
            yield from _of_git(session, one, compared)
        else:
            yield _of_bundle(one.content, key, compared)


def _of_git(session: Session, one: KeptSignature, compared: Compare) -> Iterator[SignatureVerdict]:
    """Yield the verdict on a statement that git signed; an unsigned one is none."""
    for verdict in git_signatures.of_commit(session, one.commit, "git's signature of the files"):
        yield _concluded(verdict, lambda: one.content, compared)


def _of_bundle(bundle: bytes, key: Any, compared: Compare) -> SignatureVerdict:
    """Return the verdict on a bundle; one of another key than the given one is unknown."""
    try:
        name = sigstore_bundles.key_of(bundle)
    except BadSignatureError as error:
        return SignatureVerdict(_MODEL, SignatureState.BAD, str(error))
    if key is None or (name and name != sigstore_bundles.hint_of(key)):
        told = f"key {name[:16]}: its public key was not given (--key FILE)"
        return SignatureVerdict(_MODEL, SignatureState.UNKNOWN, told)
    good = SignatureVerdict(_MODEL, SignatureState.GOOD, f"key {sigstore_bundles.hint_of(key)[:16]}")
    return _concluded(good, lambda: sigstore_bundles.opened(bundle, key), compared)


def _concluded(
    verdict: SignatureVerdict, payload: Callable[[], bytes], compared: Compare
) -> SignatureVerdict:
    """Compare what was signed with what is here, if the signature is good so far."""
    if verdict.state is not SignatureState.GOOD:
        return verdict
    try:
        differences = compared(statements.parsed(payload()))
    except BadSignatureError as error:
        return SignatureVerdict(verdict.what, SignatureState.BAD, str(error))
    if not differences:
        return verdict
    return SignatureVerdict(
        verdict.what, SignatureState.BAD, "what is here is not what was signed", differences
    )
