"""``theta verify``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from theta.cli import console, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import ExitCode, NotFoundError, UsageError
from theta.lazy import Module

if TYPE_CHECKING:
    from theta.porcelain.signing import signatures, statements
    from theta.porcelain.signing.verdicts import SignatureVerdict
else:
    signatures = Module("theta.porcelain.signing.signatures")
    statements = Module("theta.porcelain.signing.statements")

app = typer.Typer(add_completion=False)
_BAD: Final = "the signature does not hold"
_NONE: Final = "no signature could be verified"


@app.command(context_settings=HELP)
def verify(
    revision: str = typer.Argument("HEAD", metavar="REV"),
    key: str | None = typer.Option(
        None, "--key", metavar="FILE", help="The PEM public key that must have signed the commit."
    ),
    signature: str | None = typer.Option(
        None, "--signature", metavar="FILE", help="Verify this signature of Model Signing."
    ),
    worktree: bool = typer.Option(
        False, "--worktree", help="Compare the files of the worktree with what was signed."
    ),
    as_json: bool = typer.Option(False, "--json", help="Tell the verdicts as JSON."),
) -> int:
    """Verify the signatures of a commit: git's own, those of its tags, and those that theta sign made.

    Files and tensors are read and compared with what was signed. Ends with 51 if a signature or what was
    signed is not as it was, and with 52 if there is no signature that can be verified.
    """
    if signature is not None and key is None:
        raise UsageError("--signature needs the public key", hint="--key FILE")
    session = open_session(worktree=worktree)
    place = None if key is None else Path.cwd() / key
    bundle = None if signature is None else _bundle(signature)
    with terminal.progress("hashing") as progress:
        request = signatures.VerifyRequest(revision, place, bundle, worktree)
        result = signatures.verify(session, request, progress)
    code = ExitCode.BAD_SIGNATURE if result.is_bad else ExitCode.OK if result.is_good else ExitCode.NOT_SIGNED
    if as_json:
        told = {
            "commit": result.commit,
            "good": result.is_good,
            "verdicts": [v.as_json() for v in result.found],
        }
        reports.as_json("verify", told)
        return int(code)
    _show(result.found)
    if code is not ExitCode.OK:
        console.err(f"error: {_BAD if result.is_bad else _NONE}")
    return int(code)


def _bundle(name: str) -> bytes:
    place = Path.cwd() / name
    if not place.is_file():
        raise NotFoundError(f"there is no file {name}")
    if place.stat().st_size > 2 * statements.MOST:
        raise UsageError(f"{name} is too large to be a signature")
    return place.read_bytes()


def _show(found: Sequence[SignatureVerdict]) -> None:
    for one in found:
        console.out(f"{one.state.value:<8} {one.what}: {one.told}")
        for line in one.differences:
            console.out(f"         {line}")
