"""``theta doctor`` finds what is wrong, mends it, and then finds nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import Repo, make_model, random_tensors, sha256
from theta import _fs
from theta.porcelain.care import checkup
from theta.porcelain.workspace.session import Session

MODEL = "model.safetensors"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """One committed checkpoint."""
    repo = Repo.create(tmp_path_factory.mktemp("doctor") / "repo")
    repo.theta("track", "*.safetensors")
    make_model(repo.path / MODEL, random_tensors({"a.w": (64, 64), "b.w": (8,)}))
    repo.theta("add", "-A")
    repo.theta("commit", "-qm", "base")
    return repo


@pytest.fixture
def ill(template: Repo, tmp_path: Path) -> Repo:
    return template.copy(tmp_path / "repo")


def found(repo: Repo) -> list[checkup.Complaint]:
    return checkup.examine(Session.here(repo.path))


def no_filter(repo: Repo) -> None:
    repo.git("config", "--unset", "filter.theta.process")


def script(repo: Repo, event: str) -> Path:
    """The script of a hook, in the folder of those that are settings of git where it has such."""
    places = [repo.path / ".git" / folder / event for folder in ("hooks", "info/theta-hooks")]
    return next(place for place in places if place.is_file())


def no_hook(repo: Repo) -> None:
    script(repo, "pre-commit").unlink()


def hook_is_not_run(repo: Repo) -> None:
    place = script(repo, "post-commit")
    place.chmod(0o644)  # a hook that is a setting is run by a shell all the same
    if place.parent.name != "hooks":
        place.write_text("exit 0\n")


def launcher_of_another(repo: Repo) -> None:
    (repo.path / ".git/info/theta-launcher").write_text("#!/bin/sh\nexec /gone/python -m theta\n")


def no_sparse_checkout(repo: Repo) -> None:
    repo.git("config", "core.sparseCheckout", "false")


def old_lock(repo: Repo) -> None:
    for name in ("index.lock", "refs/heads/main.lock"):
        (repo.path / ".git" / name).touch()
        os.utime(repo.path / ".git" / name, (time.time() - 4000,) * 2)


def killed(repo: Repo) -> None:
    note = {"token": "0" * 32, "started": time.time(), "owner": "999999999 1"}
    (repo.path / ".git/theta/journal").write_text(json.dumps(note))


def broken_cache(repo: Repo) -> None:
    (repo.path / ".git/theta/stat-cache.json").write_text("{")


def no_rule(repo: Repo) -> None:
    repo.write(".gitattributes", "*.safetensors filter=theta diff=theta merge=text -text\n")


def manifest_in_place_of_the_file(repo: Repo) -> None:
    repo.write(MODEL, repo.git("show", f"HEAD:{MODEL}") + "\n")


def stores_left_the_index(repo: Repo) -> None:
    repo.git("rm", "-rq", "--cached", "--sparse", ".theta", env={"THETA_HOOKS": "off"})


def stores_in_the_worktree(repo: Repo) -> None:
    for path in repo.git("ls-files", ".theta").splitlines():
        repo.write(path, "")
        repo.run("sh", "-c", 'git cat-file blob ":$1" >"$1"', "sh", path)


ILLS: list[tuple[Callable[[Repo], None], str]] = [
    (no_filter, "settings"),
    (no_hook, "settings"),
    (hook_is_not_run, "settings"),
    (launcher_of_another, "settings"),
    (no_sparse_checkout, "settings"),
    (old_lock, "locks"),
    (killed, "locks"),
    (broken_cache, "caches"),
    (no_rule, "attributes"),
    (manifest_in_place_of_the_file, "files"),
    (stores_left_the_index, "stores"),
    (stores_in_the_worktree, "stores"),
]


@pytest.mark.parametrize(("make", "kind"), ILLS, ids=[make.__name__ for make, _ in ILLS])
def test_an_ill_is_found_and_mended(ill: Repo, make: Callable[[Repo], None], kind: str) -> None:
    before = sha256(ill.path / MODEL)
    make(ill)
    findings = found(ill)
    assert {finding.kind for finding in findings} == {kind}
    assert found(ill) == findings, "looking changes nothing"
    assert checkup.mend(Session.here(ill.path)) == []
    assert sha256(ill.path / MODEL) == before
    assert ill.git("status", "--porcelain") == ""


def test_a_healthy_clone_has_nothing(template: Repo, tmp_path: Path) -> None:
    assert found(template) == []
    assert template.theta("doctor").stdout == "nothing is wrong\n"
    assert found(Repo.create(tmp_path / "other")) == []


def test_a_lock_that_is_young_is_left_alone(ill: Repo) -> None:
    (ill.path / ".git/index.lock").touch()
    assert found(ill) == []


def test_a_git_in_another_worktree_may_hold_the_locks_that_are_shared(ill: Repo, tmp_path: Path) -> None:
    """It keeps those of all worktrees, and not those of this one alone."""
    for name in ("here", "there"):
        ill.git("worktree", "add", "-q", "--detach", str(tmp_path / name))
    own, shared = ill.path / ".git/worktrees/here/index.lock", ill.path / ".git/packed-refs.lock"
    for lock in (own, shared):
        lock.touch()
        os.utime(lock, (time.time() - 4000,) * 2)
    session = Session.here(tmp_path / "here")
    assert checkup._stale_locks(session) == [own, shared]
    for place in (tmp_path / "there", ill.path):
        with subprocess.Popen(["git", "cat-file", "--batch"], cwd=place, stdin=subprocess.PIPE) as git:
            assert checkup._stale_locks(session) == [own]
            assert git.stdin is not None
            git.stdin.close()
    assert checkup._stale_locks(session) == [own, shared]


def bare_hands(repo: Repo, oid: str) -> None:
    """Commit as a tool that knows neither filters nor hooks nor ``.theta/``."""
    index = {"GIT_INDEX_FILE": str(repo.path / ".git/other-index"), "THETA_HOOKS": "off"}
    repo.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{MODEL}", env=index)
    repo.git("update-index", "--add", ".gitattributes", env=index)
    tree = repo.git("write-tree", env=index)
    repo.git("update-ref", "HEAD", repo.git("commit-tree", tree, "-p", "HEAD", "-m", "by hand"))
    repo.git("read-tree", "HEAD", env={"THETA_HOOKS": "off"})


def test_what_a_tool_committed_as_plain_bytes_becomes_a_checkpoint(ill: Repo) -> None:
    """Tools such as jj write the bytes of the file into the tree; doctor stages the checkpoint."""
    make_model(ill.path / MODEL, random_tensors({"a.w": (64, 64), "b.w": (8,)}, seed=5))
    before = sha256(ill.path / MODEL)
    bare_hands(ill, ill.git("hash-object", "-w", "--no-filters", MODEL))
    done = ill.theta("doctor", code=1)
    assert done.stdout.startswith(f"plain bytes: {MODEL} is stored as plain bytes")
    body = json.loads(ill.theta("doctor", "--fix", "--json", code=0).stdout)["theta.doctor/v1"]
    assert [row["mended"] for row in body["findings"]] == [True]
    ill.theta("commit", "-qm", "as a checkpoint")
    assert ill.git("show", f"HEAD:{MODEL}").startswith("theta checkpoint 1")
    assert (found(ill), sha256(ill.path / MODEL)) == ([], before)
    ill.theta("fsck")


def test_a_file_that_differs_is_not_staged_in_place_of_plain_bytes(ill: Repo) -> None:
    bare_hands(ill, ill.git("hash-object", "-w", "--no-filters", "code.py"))
    before = sha256(ill.path / MODEL)
    assert "theta add" in ill.theta("doctor", "--fix", code=1).stdout
    assert ill.git("ls-files", "-s", MODEL).split()[1] == ill.git("hash-object", "code.py")
    assert sha256(ill.path / MODEL) == before


@pytest.mark.parametrize("is_conflicted", [False, True])
def test_a_manifest_that_cannot_be_read_does_not_keep_others_from_being_mended(
    ill: Repo, is_conflicted: bool
) -> None:
    """One run mends all: plain bytes become a checkpoint with its tensors, and a file is filled in."""
    before = sha256(ill.path / MODEL)
    text = ill.git("show", f"HEAD:{MODEL}") + "\n"
    head, rest = text.split("\n", 1)
    bad = (
        f"{head}\n<<<<<<< ours\n{rest}=======\n{rest}>>>>>>> theirs\n" if is_conflicted else f"{head}\nbad\n"
    )
    ill.write("bad.safetensors", bad)
    make_model(ill.path / MODEL, random_tensors({"a.w": (64, 64), "c.w": (8,)}, seed=5))
    for path in ("bad.safetensors", MODEL):
        oid = ill.git("hash-object", "-w", "--no-filters", path)
        ill.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{path}")
    ill.write("z.safetensors", text)
    ill.git(
        "update-index",
        "--add",
        "--cacheinfo",
        f"100644,{ill.git('rev-parse', f'HEAD:{MODEL}')},z.safetensors",
    )
    files = [sha256(ill.path / path) for path in (MODEL, "bad.safetensors")]
    assert {(one.kind, one.can_be_mended) for one in found(ill)} >= {
        ("manifests", False),
        ("plain bytes", True),
    }
    left = checkup.mend(Session.here(ill.path))
    assert [(one.kind, one.text.split(":")[0]) for one in left if one.kind != "files"] == [
        ("manifests", "bad.safetensors")
    ]
    assert ill.git("show", f":{MODEL}").startswith("theta checkpoint 1")
    assert [sha256(ill.path / path) for path in (MODEL, "bad.safetensors")] == files
    assert sha256(ill.path / "z.safetensors") == before


def test_a_lazy_clone_is_healthy_with_manifests_in_place_of_files(ill: Repo) -> None:
    ill.git("config", "theta.lazy", "true")
    (ill.path / ".git/theta/stat-cache.json").unlink()
    manifest_in_place_of_the_file(ill)
    assert found(ill) == []
    assert ill.theta("doctor").stdout == "nothing is wrong\n"


def test_a_commit_of_a_manifest_without_its_tensors_is_mended(ill: Repo) -> None:
    bare_hands(ill, ill.git("rev-parse", f"HEAD:{MODEL}"))
    assert {finding.kind for finding in found(ill)} == {"agreement"}
    assert checkup.mend(Session.here(ill.path)) == []
    ill.theta("fsck")


def test_too_little_space_is_told(ill: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("theta._fs.free_space", lambda _: 100)
    (finding,) = found(ill)
    assert (finding.kind, finding.can_be_mended) == ("space", False)


def test_a_folder_of_a_killed_command_is_removed(
    ill: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search killed by -9 left the candidate that it had laid out; what others have there stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = os.fork()
    if child == 0:
        with _fs.temporary_directory("theta-search-") as place:
            (place / "model").write_bytes(b"weights")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    with _fs.temporary_directory("theta-search-") as living:
        (left,) = set(tmp_path.glob("theta-search-*")) - {living}
        foreign = [
            tmp_path / name for name in ("theta-search-abc", "theta-search-1_00000000_x", "theta-notes")
        ]
        for place in foreign:
            place.mkdir()
        (tmp_path / left.name.replace("search", "read")).symlink_to(tmp_path / "theta-notes")
        session = Session.here(ill.path)
        assert [one.text.split()[0] for one in checkup.examine(session) if one.kind == "folders"] == [
            str(left)
        ]
        checkup.mend(session)
        assert not left.exists()
        assert all(place.is_dir() for place in (*foreign, living))
    assert not living.exists()


def test_hooks_that_the_environment_passes_over(ill: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks stay where the files say: the variable may be of one command."""
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'core.hookspath'='elsewhere'")
    are_settings = (ill.path / ".git/info/theta-hooks.config").exists()
    assert [one.kind for one in found(ill)] == ([] if are_settings else ["hooks"])
    assert not (ill.path / "elsewhere").exists()
    ill.git("config", "core.hooksPath", "elsewhere")
    checkup.mend(Session.here(ill.path))
    assert found(ill) == []
