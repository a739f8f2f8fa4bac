"""The signature of the table, by the key that git signs with, in a file of its own beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from bench.trust import table

NAMESPACE: Final = "theta.trust"
"""The namespace of a signature of SSH, so that it is none of anything else."""


def _setting(name: str) -> str:
    """Return a setting of git; one that is a path may begin with a tilde."""
    command = ["git", "config", "--type=path", "--get", name]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _signatures(file: Path) -> tuple[Path, Path]:
    """Return the places of signatures of SSH and of OpenPGP."""
    of_ssh, of_gpg = (file.with_name(f"{file.name}.{suffix}") for suffix in ("sig", "asc"))
    return of_ssh, of_gpg


def sign(file: Path) -> Path:
    """Sign the table as ``user.signingKey`` and ``gpg.format`` say; return the file of the signature."""
    key = _setting("user.signingKey")
    if not key:
        sys.exit("git has no key to sign with: git config user.signingKey")
    of_ssh, of_gpg = _signatures(file)
    for old in (of_ssh, of_gpg):  # ssh-keygen asks before it replaces one
        old.unlink(missing_ok=True)
    if _setting("gpg.format") == "ssh":
        subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, str(file)], check=True)
        return of_ssh
    command = ["gpg", "--batch", "--armor", "--local-user", key, "--output", str(of_gpg)]
    subprocess.run([*command, "--detach-sign", str(file)], check=True)
    return of_gpg


def verify(file: Path) -> int:
    """Print whether the digest of the table is that of its rows, and who signed it; 1 if anything is not."""
    if not table.is_whole(file):
        print("the digest of the table is not that of its rows")
        return 1
    print("the digest of the table is that of its rows")
    of_ssh, of_gpg = _signatures(file)
    if of_ssh.exists():
        return _verify_ssh(file, of_ssh)
    if of_gpg.exists():
        return int(subprocess.run(["gpg", "--verify", str(of_gpg), str(file)], check=False).returncode != 0)
    print("it is not signed")
    return 0


def _verify_ssh(file: Path, signature: Path) -> int:
    """Print the key, and whose it is by ``gpg.ssh.allowedSignersFile``, if that is set."""
    command = ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(signature)]
    with file.open("rb") as opened:
        is_good = subprocess.run(command, stdin=opened, check=False).returncode == 0
    known = _setting("gpg.ssh.allowedSignersFile")
    if is_good and known:
        command = ["ssh-keygen", "-Y", "find-principals", "-f", known, "-s", str(signature)]
        return int(subprocess.run(command, check=False).returncode != 0)
    return int(not is_good)
