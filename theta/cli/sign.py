"""``theta sign``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from theta import _fs
from theta.cli import console, report_files, reports, terminal
from theta.cli.args import HELP
from theta.cli.common import open_session
from theta.errors import UsageError
from theta.lazy import Module
from theta.store.changes import counted

if TYPE_CHECKING:
    from theta.porcelain.signing import signatures
else:
    signatures = Module("theta.porcelain.signing.signatures")

app = typer.Typer(add_completion=False)
_PASSWORD: Final = "THETA_SIGN_PASSWORD"
_MARK: Final = "application/vnd.dev.sigstore.bundle"
"""A text in each bundle: only these are written over."""


@app.command(context_settings=HELP)
def sign(
    revision: str = typer.Argument("HEAD", metavar="REV"),
    key: str | None = typer.Option(
        None, "--key", metavar="FILE", help="Sign with this PEM key, for Model Signing; not by git."
    ),
    out: str | None = typer.Option(
        None, "-o", "--output", metavar="FILE", help="With --key: write the signature to FILE too."
    ),
    as_json: bool = typer.Option(False, "--json", help="Tell as JSON what was signed."),
) -> int:
    """Sign all files and tensors of a commit, by git (as it is configured) or with a key.

    The signature is kept below refs/theta/signatures/. THETA_SIGN_PASSWORD opens a key with a password.
    """
    if out is not None and key is None:
        raise UsageError("-o goes with --key: git's own signature is no file")
    if out is not None:
        report_files.refuse(out, _MARK)
    place = None if key is None else Path.cwd() / key
    request = signatures.SignRequest(revision, place, os.environ.get(_PASSWORD))
    with terminal.progress("hashing") as progress:
        done = signatures.sign(open_session(worktree=False), request, progress)
    if out is not None and done.bundle is not None:
        _fs.write_atomic(Path.cwd() / out, done.bundle)
    if as_json:
        told = {"commit": done.commit, "signer": done.signer, "files": done.files, "tensors": done.tensors}
        reports.as_json("sign", told)
        return 0
    signer = "git" if key is None else f"key {done.signer[:16]}"
    what = f"{counted(done.files, 'file')} with {counted(done.tensors, 'tensor')}"
    console.note(f"signed {done.commit[:12]} by {signer}: {what}")
    return 0
