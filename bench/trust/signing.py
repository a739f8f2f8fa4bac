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
    done = subprocess.run(["git", "config", "--get", name], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def sign(file: Path) -> Path:
    """Sign the table as ``user.signingKey`` and ``gpg.format`` say; return the file of the signature."""
    key = _setting("user.signingKey")
    if not key:
        sys.exit("git has no key to sign with: git config user.signingKey")
    if _setting("gpg.format") == "ssh":
        subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", NAMESPACE, "-f", key, str(file)], check=True)
        return file.with_name(f"{file.name}.sig")
    made = file.with_name(f"{file.name}.asc")
    command = ["gpg", "--batch", "--yes", "--armor", "--local-user", key, "--output", str(made)]
    subprocess.run([*command, "--detach-sign", str(file)], check=True)
    return made


def verify(file: Path) -> int:
    """Print whether the digest of the table is that of its rows, and who signed it; 1 if anything is not."""
    if not table.is_whole(file):
        print("the digest of the table is not that of its rows")
        return 1
    print("the digest of the table is that of its rows")
    of_ssh, of_gpg = (file.with_name(f"{file.name}.{suffix}") for suffix in ("sig", "asc"))
    if of_ssh.exists():
        command = ["ssh-keygen", "-Y", "check-novalidate", "-n", NAMESPACE, "-s", str(of_ssh)]
        return subprocess.run(command, stdin=file.open("rb"), check=False).returncode
    if of_gpg.exists():
        return subprocess.run(["gpg", "--verify", str(of_gpg), str(file)], check=False).returncode
    print("it is not signed")
    return 0
