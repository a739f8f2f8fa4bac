"""``theta sign`` and ``theta verify``: tampering is found, and the program of Model Signing agrees."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.checks import refused
from tests.docs.pages import Block
from tests.docs.shown import run_all
from tests.support import Repo, make_model, random_tensors
from theta.errors import BadSignatureError, ExitCode
from theta.porcelain.signing import sigstore_bundles, statements
from theta.porcelain.signing.statements import Statement

MODEL = "model.safetensors"
BAD, UNSIGNED = int(ExitCode.BAD_SIGNATURE), int(ExitCode.NOT_SIGNED)
SIGNATURES = "refs/theta/signatures"
NAMES = {"a.weight": (8, 8), "b.weight": (4, 4)}


def program(*words: str, folder: Path) -> int:
    return subprocess.run(words, cwd=folder, check=False, capture_output=True, timeout=120).returncode


def ssh_key(place: Path) -> Path:
    assert program("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place), folder=place.parent) == 0
    return place


def ec_key(place: Path, curve: str = "secp256r1") -> Path:
    """A private key in ``place``, the public one beside it with ``.pub``."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    known: tuple[ec.EllipticCurve, ...] = (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())
    key = ec.generate_private_key({one.name: one for one in known}[curve])
    plain = form.NoEncryption()
    place.write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, plain))
    public = key.public_key().public_bytes(form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
    place.with_name(place.name + ".pub").write_bytes(public)
    return place


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Repo:
    """Two versions of a model with a text beside it; git signs by SSH, and knows its own key."""
    folder = tmp_path_factory.mktemp("signing")
    key = ssh_key(folder / "id")
    repo = Repo.create(folder / "repo")
    (folder / "allowed").write_text(f"ada@example.com {key.with_suffix('.pub').read_text()}")
    for name, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", str(key)),
        ("gpg.ssh.allowedSignersFile", str(folder / "allowed")),
    ):
        repo.git("config", name, value)
    repo.theta("track", "*.safetensors")
    (repo.path / "sub").mkdir()
    repo.write("sub/config.json", "{}\n")
    for seed in (1, 2):
        make_model(repo.path / MODEL, random_tensors(NAMES, seed))
        repo.theta("add", ".")
        repo.theta("commit", "-q", "-m", str(seed))
    ec_key(folder / "key")
    return repo


@pytest.fixture
def signed(template: Repo, tmp_path: Path) -> Repo:
    """A copy of the repository with its keys beside it: HEAD is signed by git and by a key."""
    repo = template.copy(tmp_path / "repo")
    for name in ("key", "key.pub"):
        shutil.copy(template.path.parent / name, tmp_path / name)
    repo.theta("sign")
    repo.theta("sign", "--key", "../key", "-o", "../model.sig")
    return repo


def told(repo: Repo, *words: str, code: int) -> list[dict[str, Any]]:
    """The verdicts of ``theta verify --json``."""
    text = repo.theta("verify", "--json", *words, code=code).stdout
    found: list[dict[str, Any]] = json.loads(text)["theta.verify/v1"]["verdicts"]
    return found


def test_what_was_signed_is_verified(signed: Repo) -> None:
    found = told(signed, "--key", "../key.pub", code=0)
    assert {(one["what"], one["state"]) for one in found} == {
        ("git's signature of the files", "good"),
        ("model signature", "good"),
    }
    assert "ada@example.com" in signed.theta("verify", "--key", "../key.pub").stdout
    told(signed, "--worktree", "--key", "../key.pub", code=0)
    told(signed, "--signature", "../model.sig", "--key", "../key.pub", code=0)


def test_without_a_key_of_git_both_ways_to_sign_are_named(template: Repo, tmp_path: Path) -> None:
    repo = template.copy(tmp_path / "repo")
    repo.git("config", "user.signingKey", str(tmp_path / "none"))
    said = repo.theta("sign", code=None)
    assert said.returncode
    assert "hint: git signs with user.signingKey" in said.stderr
    assert repo.git("for-each-ref", "refs/theta/signatures") == ""


def test_the_programs_of_model_signing_agree(signed: Repo, tmp_path: Path) -> None:
    """Its program verifies the worktree by the file that theta wrote, and theta the file that it wrote."""
    tool = str(Path(sys.executable).with_name("model_signing"))
    verifying = (tool, "verify", "key", ".", "--signature", "../model.sig", "--public_key", "../key.pub")
    assert program(*verifying, folder=signed.path) == 0
    (signed.path / "sub/config.json").write_text("{ }\n")
    assert program(*verifying, folder=signed.path) != 0
    signed.theta("restore", ".")
    signing = (tool, "sign", "key", "--signature", "../theirs.sig", "--private_key", "../key", ".")
    assert program(*signing, folder=signed.path) == 0
    told(signed, "--signature", "../theirs.sig", "--key", "../key.pub", code=0)
    (found,) = told(signed, "HEAD~", "--signature", "../theirs.sig", "--key", "../key.pub", code=BAD)
    assert found["differences"] == [f"{MODEL} is not what was signed"]


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_other_curves_are_those_of_model_signing(signed: Repo, tmp_path: Path, curve: str) -> None:
    ec_key(tmp_path / "other", curve)
    signed.theta("sign", "--key", "../other", "-o", "../other.sig")
    told(signed, "--key", "../other.pub", code=0)
    tool = str(Path(sys.executable).with_name("model_signing"))
    words = ("verify", "key", ".", "--signature", "../other.sig", "--public_key", "../other.pub")
    assert program(tool, *words, folder=signed.path) == 0


@pytest.mark.page("signing", "console")
def test_the_page_has_commands_that_run(template: Repo, tmp_path: Path, page_blocks: list[Block]) -> None:
    """The key is beside the commit, as in a folder of its own; git's verdict on it is a configured one."""
    repo = template.copy(tmp_path / "repo")
    ec_key(tmp_path / "key.pem")
    (tmp_path / "key.pem.pub").rename(tmp_path / "key.pub")
    repo.theta("tag", "-s", "-m", "one", "v1")
    repo.git("init", "-q", "--bare", "../origin.git")
    repo.git("remote", "add", "origin", "../origin.git")
    repo.git("push", "-q", "origin", "main")
    places = {"key.pem": "../key.pem", "key.pub": "../key.pub", "model.sig": "../model.sig"}
    run_all(repo, page_blocks, places)
    assert repo.git("ls-remote", "origin", f"{SIGNATURES}/*")


# -- tampering -------------------------------------------------------------------------------------


def one_tensor(repo: Repo) -> None:
    tensors = random_tensors(NAMES, 2)
    tensors["b.weight"][0, 0] += np.float32(1e-6)
    make_model(repo.path / MODEL, tensors)


def one_file(repo: Repo) -> None:
    repo.write("sub/config.json", "{ }\n")


def a_file_gone(repo: Repo) -> None:
    (repo.path / "sub/config.json").unlink()


def another_file(repo: Repo) -> None:
    repo.write("pytorch_model.bin", "evil\n")


def another_link(repo: Repo) -> None:
    (repo.path / "other.safetensors").symlink_to(MODEL)


def an_older_manifest(repo: Repo) -> None:
    repo.write(MODEL, repo.git("show", f"HEAD~:{MODEL}") + "\n")


def text_like_a_manifest(repo: Repo) -> None:
    repo.write(MODEL, "theta checkpoint 1\nevil\n")


IN_WORKTREE: dict[str, tuple[Callable[[Repo], None], str]] = {
    "another file": (another_file, "pytorch_model.bin was not signed"),
    "another link": (another_link, "other.safetensors was not signed"),
    "the manifest of another version": (an_older_manifest, f"{MODEL}: tensor a.weight is gone"),
    "a text that begins like one": (text_like_a_manifest, f"{MODEL}: tensor a.weight is gone"),
}
TAMPERED: dict[str, tuple[Callable[[Repo], None], str]] = {
    "one tensor": (one_tensor, f"{MODEL}: tensor b.weight differs"),
    "one file": (one_file, "sub/config.json is not what was signed"),
    "a file that is gone": (a_file_gone, "sub/config.json was signed and is gone"),
}


@pytest.mark.parametrize("kind", TAMPERED | IN_WORKTREE)
def test_tampering_with_the_worktree_is_found(signed: Repo, kind: str) -> None:
    act, line = (TAMPERED | IN_WORKTREE)[kind]
    signed.theta("tag", "-s", "-m", "one", "v1")
    act(signed)
    found = told(signed, "--worktree", "--key", "../key.pub", code=BAD)
    assert len(found) == 3
    assert all(one["differences"][0] == line for one in found)
    assert all(len(one["differences"]) == 1 for one in found) or "manifest" in kind or "like" in kind
    assert line in signed.theta("verify", "--worktree", "--key", "../key.pub", code=BAD).stdout
    told(signed, "--key", "../key.pub", code=0)


@pytest.mark.parametrize("kind", TAMPERED)
def test_tampering_with_the_commit_is_found(signed: Repo, kind: str) -> None:
    """A commit with other content that gets the signatures of the one before."""
    act, line = TAMPERED[kind]
    act(signed)
    old = signed.git("rev-parse", "HEAD")
    signed.theta("commit", "-q", "-a", "--amend", "--no-edit")
    refused(signed.theta("verify", "--key", "../key.pub", code=None), UNSIGNED, "not signed")
    signed.git("update-ref", f"{SIGNATURES}/{signed.git('rev-parse', 'HEAD')}", f"{SIGNATURES}/{old}")
    for one in told(signed, "--key", "../key.pub", code=BAD):
        assert (one["state"], one["differences"]) == (
            "bad",
            [f"the signature is of commit {old[:12]}", line],
        )


def test_a_replaced_commit_is_verified_as_itself(signed: Repo) -> None:
    signed.git("replace", "HEAD", "HEAD~")
    told(signed, "--key", "../key.pub", code=0)


def rewritten(repo: Repo, name: str, edit: Callable[[bytes], bytes]) -> None:
    """Replace a file of the newest signature, as somebody without a key could."""
    commit = repo.git("rev-parse", "HEAD")
    ref = f"{SIGNATURES}/{commit}"
    rows = [row.split(None, 3) for row in repo.git("ls-tree", ref).splitlines()]
    lines = []
    for mode, kind, oid, path in rows:
        if path.endswith(name):
            content = edit(repo.git("cat-file", "blob", oid).encode())
            (repo.path.parent / "new").write_bytes(content)
            oid = repo.git("hash-object", "-w", "../new")
        lines.append(f"{mode} {kind} {oid}\t{path}\n")
    (repo.path.parent / "rows").write_text("".join(lines))
    tree = subprocess.run(
        ["git", "mktree"], cwd=repo.path, input="".join(lines), capture_output=True, text=True, check=True
    ).stdout.strip()
    body = repo.git("cat-file", "commit", ref).replace(repo.git("rev-parse", f"{ref}^{{tree}}"), tree)
    (repo.path.parent / "body").write_text(body + "\n")
    made = repo.git("hash-object", "-t", "commit", "-w", "../body")
    repo.git("update-ref", ref, made)


def forged(bundle: bytes) -> bytes:
    whole = json.loads(bundle)
    payload = json.loads(base64.b64decode(whole["dsseEnvelope"]["payload"]))
    payload["predicate"]["theta"]["commit"] = "0" * 40
    whole["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    "edit",
    [forged, lambda text: text[:-9], lambda text: b"[]", lambda text: b"[" * 100_000, lambda text: b"\xff"],
    ids=["another statement", "cut", "a list", "deep", "no text"],
)
def test_a_tampered_bundle_is_found(signed: Repo, edit: Callable[[bytes], bytes]) -> None:
    rewritten(signed, ".sig", edit)
    found = told(signed, "--key", "../key.pub", code=BAD)
    assert "bad" in {one["state"] for one in found if one["what"] == "model signature"}


def test_a_tampered_statement_of_git_is_found(template: Repo, tmp_path: Path) -> None:
    repo = template.copy(tmp_path / "repo")
    repo.theta("sign")
    rewritten(repo, "statement.json", lambda text: text.replace(b"config.json", b"konfig.json"))
    (found,) = told(repo, code=BAD)
    assert (found["state"], found["what"]) == ("bad", "git's signature of the files")


def test_the_key_of_somebody_else_is_not_enough(signed: Repo, tmp_path: Path) -> None:
    """A signature by another key beside the right one changes nothing; alone it is none."""
    ec_key(tmp_path / "other")
    done = signed.theta("verify", "--key", "../other.pub", code=UNSIGNED)
    assert "no signature could be verified" in done.stderr
    signed.theta("sign", "--key", "../other")
    states = {one["state"] for one in told(signed, "--key", "../key.pub", code=0)}
    assert states == {"good", "unknown"}
    shutil.copy(tmp_path / "model.sig", tmp_path / "wrong.sig")
    bundle = json.loads((tmp_path / "wrong.sig").read_text())
    hint = sigstore_bundles.hint_of(sigstore_bundles.public_key(tmp_path / "other.pub"))
    bundle["verificationMaterial"]["publicKey"]["hint"] = hint
    (tmp_path / "wrong.sig").write_text(json.dumps(bundle))
    told(signed, "--signature", "../wrong.sig", "--key", "../other.pub", code=BAD)


# -- git's own signatures ------------------------------------------------------------------------------


def test_signed_commits_and_tags_of_git_are_verified(template: Repo, tmp_path: Path) -> None:
    repo = template.copy(tmp_path / "repo")
    refused(repo.theta("verify", code=None), UNSIGNED, "not signed")
    repo.theta("commit", "-q", "--amend", "--no-edit", "-S")
    repo.theta("tag", "-s", "-m", "one", "v1")
    repo.theta("tag", "-a", "-m", "not signed", "v0")
    assert [(one["what"], one["state"]) for one in told(repo, "v1", code=0)] == [
        ("commit", "good"),
        ("tag v1", "good"),
    ]


def test_a_commit_that_keeps_the_signature_of_another_is_bad(template: Repo, tmp_path: Path) -> None:
    repo = template.copy(tmp_path / "repo")
    repo.theta("commit", "-q", "--amend", "--no-edit", "-S")
    body = repo.git("cat-file", "commit", "HEAD").replace("\n\n2", "\n\nanother message")
    (tmp_path / "body").write_text(body + "\n")
    repo.git("update-ref", "HEAD", repo.git("hash-object", "-t", "commit", "-w", "../body"))
    (found,) = told(repo, code=BAD)
    assert (found["what"], found["state"]) == ("commit", "bad")


def test_a_tag_under_another_name_is_bad(template: Repo, tmp_path: Path) -> None:
    """A release of old may be passed off as a newer one."""
    repo = template.copy(tmp_path / "repo")
    repo.theta("tag", "-s", "-m", "one", "v1")
    repo.git("update-ref", "refs/tags/v2", "refs/tags/v1")
    repo.git("tag", "-d", "v1")
    (found,) = told(repo, "v2", code=BAD)
    assert (found["what"], found["state"], found["told"]) == ("tag v2", "bad", "the tag was signed as v1")


def test_signatures_are_not_hidden_below_many_commits(signed: Repo) -> None:
    ref = f"{SIGNATURES}/{signed.git('rev-parse', 'HEAD')}"
    tip = signed.git("rev-parse", ref)
    for _ in range(64):
        tip = signed.git("commit-tree", "-p", tip, "-m", "nothing", f"{tip}^{{tree}}")
    signed.git("update-ref", ref, tip)
    refused(signed.theta("verify", "--key", "../key.pub", code=None), BAD, "more than 64 commits")


def test_a_bundle_of_many_parts_is_not_parsed(signed: Repo, tmp_path: Path) -> None:
    """Twelve megabytes of lists take 300 when they are parsed, and nothing of a bundle is proven by then."""
    (tmp_path / "many.sig").write_text("[" + "[]," * 4_000_000 + "[]]")
    (found,) = told(signed, "--signature", "../many.sig", "--key", "../key.pub", code=BAD)
    assert "too many parts" in found["told"]


def test_a_key_that_git_does_not_know_is_unknown(template: Repo, tmp_path: Path) -> None:
    repo = template.copy(tmp_path / "repo")
    repo.theta("sign")
    (tmp_path / "nobody").write_text("")
    repo.git("config", "gpg.ssh.allowedSignersFile", str(tmp_path / "nobody"))
    (found,) = told(repo, code=UNSIGNED)
    assert found["state"] == "unknown"


def test_signatures_travel(signed: Repo, tmp_path: Path) -> None:
    there = signed.clone(tmp_path / "there")
    there.git("fetch", "-q", "origin", f"{SIGNATURES}/*:{SIGNATURES}/*")
    told(there, "--key", "../key.pub", code=0)


# -- what is refused -------------------------------------------------------------------------------------


def test_lines_that_make_no_sense_are_refused(signed: Repo, tmp_path: Path) -> None:
    refused(signed.theta("sign", "-o", "x.sig", code=None), 2, "--key")
    refused(signed.theta("sign", "nowhere", code=None), 13, "nowhere")
    refused(signed.theta("sign", "--key", "../none", code=None), 13, "none")
    refused(signed.theta("sign", "--key", "../key.pub", code=None), 2, "no private key")
    refused(signed.theta("verify", "--key", "../key", code=None), 2, "no public key")
    refused(signed.theta("verify", "--signature", "../model.sig", code=None), 2, "public key")
    refused(signed.theta("verify", "--key", "../key.pub", "--signature", "no", code=None), 13, "no file")
    refused(signed.theta("sign", "--key", "../key", "-o", MODEL, code=None), 14, MODEL)
    signed.theta("sign", "--key", "../key", "-o", "../model.sig")


def test_a_key_with_a_password_is_opened_by_a_variable(signed: Repo, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as form

    key = form.load_pem_private_key((tmp_path / "key").read_bytes(), None)
    locked = form.BestAvailableEncryption(b"secret")
    (tmp_path / "locked").write_bytes(key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, locked))
    refused(signed.theta("sign", "--key", "../locked", code=None), 2, "locked")
    signed.theta("sign", "--key", "../locked", env={"THETA_SIGN_PASSWORD": "secret"})
    told(signed, "--key", "../key.pub", code=0)


def test_a_statement_is_read_as_it_was_written() -> None:
    one = Statement(
        "m", "1" * 40, {"b/c": "ab" * 32, "b.x": "cd" * 32}, {"b.x": {"t": f"f32 [1] {'0' * 64}"}}
    )
    assert statements.parsed(one.encoded()) == one
    assert one.differences(one) == []


@pytest.mark.parametrize("key", ["_type", "predicateType", "subject", "predicate"])
def test_a_statement_of_another_kind_is_none(key: str) -> None:
    whole = json.loads(Statement("m", "", {"a": "ab" * 32}).encoded())
    others: tuple[object, ...] = ("x", None, [], {"x": 1}, 5)
    for other in others:
        with pytest.raises(BadSignatureError):
            statements.parsed(json.dumps({**whole, key: other}).encode())
    whole["predicate"]["resources"][0]["digest"] = "cd" * 32
    with pytest.raises(BadSignatureError):
        statements.parsed(json.dumps(whole).encode())
