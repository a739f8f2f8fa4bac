"""Git's own signatures (OpenPGP, SSH, X.509, as git is configured) of commits and tags, checked by git."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from theta.git.quoting import split_lines
from theta.porcelain.signing.verdicts import SignatureState, SignatureVerdict
from theta.porcelain.workspace.session import Session

_BAD: Final = ("incorrect signature", "Signature verification failed", "could not be verified")
_REASONS: Final = {
    "BADSIG": "a bad signature",
    "REVKEYSIG": "the key of {} was revoked",
    "EXPKEYSIG": "the key of {} has expired",
    "EXPSIG": "the signature of {} has expired",
    "NO_PUBKEY": "the key {} is not known",
}
"""Keyword of gpg's status -> why the signature does not count, the gravest first."""
_PLAIN: Final = "--no-replace-objects"
"""The object of that id is verified, not one that ``git replace`` puts in its place."""
_ARMOUR: Final = ("-----BEGIN PGP", "-----BEGIN SSH SIGNATURE", "-----BEGIN SIGNED MESSAGE")


def of_commit(session: Session, commit: str, what: str) -> Iterator[SignatureVerdict]:
    """Yield the verdict on the signature in a commit object; nothing for one without."""
    header = session.repo.git().run(_PLAIN, "cat-file", "commit", commit).text.partition("\n\n")[0]
    if any(line.startswith("gpgsig") for line in split_lines(header)):
        yield _verdict(session, "verify-commit", commit, what)


def of_tags(session: Session, commit: str) -> Iterator[SignatureVerdict]:
    """Yield the verdicts on the signed tags of a commit."""
    form = "--format=%(objecttype) %(refname)"
    found = session.repo.git().run("for-each-ref", form, f"--points-at={commit}", "refs/tags").text
    for line in filter(None, split_lines(found)):
        kind, _, ref = line.partition(" ")
        text = session.repo.git().run(_PLAIN, "cat-file", "tag", ref).text if kind == "tag" else ""
        if any(mark in text for mark in _ARMOUR):
            name = ref.removeprefix("refs/tags/")
            yield _as_named(_verdict(session, "verify-tag", ref, f"tag {name}"), name, text)


def _as_named(verdict: SignatureVerdict, name: str, text: str) -> SignatureVerdict:
    """Return the verdict on tag ``name``; bad if its ``text`` was signed as another tag."""
    signed = next((row[4:] for row in split_lines(text) if row.startswith("tag ")), "")
    if verdict.state is not SignatureState.GOOD or signed == name:
        return verdict
    return SignatureVerdict(verdict.what, SignatureState.BAD, f"the tag was signed as {signed}")


def _verdict(session: Session, command: str, name: str, what: str) -> SignatureVerdict:
    done = session.repo.git().run(_PLAIN, command, "--raw", name, check=False)
    told = done.stderr.decode("utf-8", "replace") + done.text
    if done.code == 0 and not _REASONS.keys() & _status(told).keys():  # git 2.55 takes keys that have expired
        return SignatureVerdict(what, SignatureState.GOOD, _signer(told))
    bad = "BADSIG" in _status(told) or any(mark in told for mark in _BAD)
    return SignatureVerdict(what, SignatureState.BAD if bad else SignatureState.UNKNOWN, _reason(told))


def _status(told: str) -> dict[str, str]:
    """Return what gpg's status lines say: keyword -> signer, or the id of a key without a signer.

    The lines are those of doc/DETAILS of GnuPG, such as ``[GNUPG:] GOODSIG KEYID USER``.
    """
    rows = [line.split(" ", 3)[1:] for line in split_lines(told) if line.startswith("[GNUPG:] ")]
    return {row[0]: row[-1] for row in rows if len(row) > 1}


def _signer(told: str) -> str:
    """Return the signer in what gpg's status or ssh-keygen tell."""
    if (name := _status(told).get("GOODSIG")) is not None:
        return name
    for line in split_lines(told):
        if line.startswith('Good "git" signature for '):
            return line.removeprefix('Good "git" signature for ')
    return "git has verified it"


def _reason(told: str) -> str:
    status = _status(told)
    for keyword, reason in _REASONS.items():
        if keyword in status:
            return f"git: {reason.format(status[keyword])}"
    lines = [line for line in split_lines(told) if line.strip() and not line.startswith("[GNUPG:]")]
    return f"git: {lines[0].removeprefix('error: ')}" if lines else "git could not verify it"
