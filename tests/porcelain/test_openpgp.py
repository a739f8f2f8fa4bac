"""``theta sign`` and ``theta verify`` with OpenPGP: keys that are known, unknown, expired and revoked."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import Repo, make_model, random_tensors
from theta.errors import ExitCode

MODEL: Final = "model.safetensors"
BAD, UNSIGNED = int(ExitCode.BAD_SIGNATURE), int(ExitCode.NOT_SIGNED)
SIGNER: Final = "Ada Tester <ada@example.com>"
LONG_AGO: Final = ("--faked-system-time", "20200101T000000")


class Keyring:
    """The home of gpg with one key, which was made long ago and never expires."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)
        self.gpg(*LONG_AGO, "--passphrase", "", "--quick-generate-key", SIGNER, "ed25519", "sign", "never")
        listed = self.gpg("--with-colons", "--list-keys")
        self.key = next(line.split(":")[9] for line in listed.split("\n") if line.startswith("fpr"))

    def gpg(self, *words: str) -> str:
        """Return what gpg prints."""
        line = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", *words]
        return subprocess.run(line, check=True, capture_output=True, text=True, timeout=120).stdout

    def expire(self) -> None:
        """Let the key have expired the day after it was made."""
        self.gpg(*LONG_AGO, "--quick-set-expire", self.key, "1d")

    def revoke(self) -> None:
        """Import the revocation that gpg made with the key; a colon keeps it from being used by accident."""
        made = self.home / "openpgp-revocs.d" / f"{self.key}.rev"
        text = made.read_text().replace(":-----BEGIN", "-----BEGIN")
        made.with_suffix(".asc").write_text(text)
        self.gpg("--import", str(made.with_suffix(".asc")))

    def forget(self) -> None:
        """Drop the key."""
        self.gpg("--yes", "--delete-secret-and-public-key", self.key)


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyring]:
    """A home with a short name: that of a socket has at most 108 bytes."""
    place = Path(tempfile.mkdtemp(prefix="pgp", dir="/tmp"))
    made = Keyring(place / "g")
    monkeypatch.setenv("GNUPGHOME", str(made.home))
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "all"], check=False)
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def signed(repo: Repo, keyring: Keyring) -> Repo:
    """A version whose commit, tag and files are signed."""
    repo.git("config", "gpg.format", "openpgp")
    repo.git("config", "user.signingKey", keyring.key)
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({"a.weight": (8, 8)}))
    repo.theta("add", ".")
    repo.theta("commit", "-q", "-S", "-m", "signed")
    repo.theta("tag", "-s", "-m", "one", "v1")
    repo.theta("sign")
    return repo


def verdicts(repo: Repo, *words: str, code: int) -> list[dict[str, Any]]:
    told = json.loads(repo.theta("verify", "--json", *words, code=code).stdout)
    found: list[dict[str, Any]] = told["theta.verify/v1"]["verdicts"]
    return found


def test_the_commit_the_tag_and_the_files_are_good(signed: Repo) -> None:
    found = verdicts(signed, code=0)
    assert sorted(one["what"] for one in found) == ["commit", "git's signature of the files", "tag v1"]
    assert {(one["state"], one["told"]) for one in found} == {("good", SIGNER)}
    assert signed.theta("verify", "--worktree").stdout.count(SIGNER) == 3


def test_another_model_is_not_what_was_signed(signed: Repo) -> None:
    make_model(signed.path / MODEL, random_tensors({"a.weight": (8, 8)}, 1))
    found = verdicts(signed, "--worktree", code=BAD)
    assert {(one["state"], *one["differences"]) for one in found} == {
        ("bad", f"{MODEL}: tensor a.weight differs")
    }


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (Keyring.expire, f"git: the key of {SIGNER} has expired"),
        (Keyring.revoke, f"git: the key of {SIGNER} was revoked"),
        (Keyring.forget, "git: the key {short} is not known"),
    ],
)
def test_a_key_that_does_not_count_verifies_nothing(
    signed: Repo, keyring: Keyring, change: Callable[[Keyring], None], reason: str
) -> None:
    change(keyring)
    found = verdicts(signed, code=UNSIGNED)
    wanted = reason.replace("{short}", keyring.key[-16:])
    assert [(one["state"], one["told"]) for one in found] == [("unknown", wanted)] * 3
    done = signed.theta("verify", code=UNSIGNED)
    assert done.stdout.count(wanted) == 3
    assert "no signature could be verified" in done.stderr


def test_a_commit_that_was_edited_is_bad(signed: Repo) -> None:
    """The signature of another message."""
    text = signed.git("cat-file", "commit", "HEAD").replace("\n\nsigned", "\n\nforged")
    forged = signed.git("hash-object", "-t", "commit", "-w", "--stdin", stdin=text + "\n")
    (found,) = verdicts(signed, forged, code=BAD)
    assert (found["what"], found["state"], found["told"]) == ("commit", "bad", "git: a bad signature")


def test_a_key_that_cannot_sign_is_told(signed: Repo, keyring: Keyring) -> None:
    keyring.forget()
    done = signed.theta("sign", code=None)
    assert done.returncode != 0
    assert "failed to sign" in done.stderr or "signing failed" in done.stderr
    assert "Traceback" not in done.stderr
