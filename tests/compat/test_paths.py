"""The places of checkpoints: folders, odd names, several of them, copies and renames."""

from __future__ import annotations

import shutil

import pytest

from tests.compat.agreement import assert_agreement, git_status, index_entries, manifests
from tests.compat.story import MODEL, commit, digest, edit, new_model, run_either
from tests.support import Repo

OTHER = "other.safetensors"


def stores(repo: Repo) -> dict[str, str]:
    """Path -> store of each staged checkpoint."""
    files = {entry.path: entry.oid for entry in index_entries(repo) if not entry.path.startswith(".theta/")}
    return {path: manifest.store for path, manifest in manifests(repo, files).items()}


@pytest.mark.parametrize(
    "path",
    [
        "models/deep/er/model.safetensors",
        "with space/my model.safetensors",
        "modèle/重み.safetensors",
        "-dash.safetensors",
        '"quoted\\name".safetensors',
        "a;b$c&d'e.safetensors",
        "[ab]*?.safetensors",
        "@at.safetensors",
        "100%25.safetensors",
        ".hidden.safetensors",
        "tab\tname.safetensors",
    ],
)
def test_odd_paths(tracked: Repo, path: str) -> None:
    first = new_model(tracked, path, 5)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "odd")
    new = edit(tracked, "layer.1.weight", path=path)
    tracked.theta("add", "--", path)
    assert_agreement(tracked, {path: new})
    tracked.theta("commit", "-q", "-m", "odd, changed")
    assert git_status(tracked) == []
    tracked.git("checkout", "-q", "HEAD~1")
    assert_agreement(tracked, {path: first})


def test_a_path_that_is_not_utf8(tracked: Repo) -> None:
    path = b"caf\xe9.safetensors".decode("utf-8", "surrogateescape")
    first = new_model(tracked, path, 5)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "latin-1")
    edit(tracked, "layer.1.weight", path=path)
    tracked.git("checkout", "-q", ".")
    assert_agreement(tracked, {path: first})


def test_commands_in_a_folder(tracked: Repo) -> None:
    path = "models/model.safetensors"
    first = new_model(tracked, path, 5)
    folder = Repo(tracked.path / "models", tracked.ticks)
    folder.theta("add", "model.safetensors")
    folder.theta("commit", "-q", "-m", "in a folder")
    edit(tracked, "layer.1.weight", path=path)
    folder.git("add", ".")
    assert_agreement(tracked)
    folder.git("commit", "-q", "-m", "changed")
    folder.theta("restore", "--source", "HEAD~1", "model.safetensors")
    assert_agreement(tracked, {path: first})
    assert git_status(tracked) == [f" M {path}"]


def test_two_checkpoints_with_one_name(tracked: Repo) -> None:
    one, two = new_model(tracked, f"one/{MODEL}", 1), new_model(tracked, f"two/{MODEL}", 2)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "three models")
    assert_agreement(tracked, {f"one/{MODEL}": one, f"two/{MODEL}": two})
    assert len(set(stores(tracked).values())) == 3


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a_copy_gets_a_store_of_its_own_when_it_changes(tracked: Repo, program: str) -> None:
    shutil.copy(tracked.path / MODEL, tracked.path / OTHER)
    run_either(tracked, program, "add", OTHER)
    assert_agreement(tracked, {OTHER: digest(tracked)})
    tracked.git("commit", "-q", "-m", "copy")
    assert_agreement(tracked, {OTHER: digest(tracked)})
    one, two = edit(tracked, "layer.1.weight"), edit(tracked, "layer.1.weight", 3.0, OTHER)
    run_either(tracked, program, "add", ".")
    assert_agreement(tracked, {MODEL: one, OTHER: two})
    tracked.git("commit", "-q", "-m", "apart")
    assert_agreement(tracked, {MODEL: one, OTHER: two})
    assert len(set(stores(tracked).values())) == 2


def test_a_copy_of_the_manifest_gets_a_store_of_its_own(tracked: Repo) -> None:
    """As ``git checkout HEAD -- PATH`` and a rename elsewhere can leave it: two manifests, one store."""
    manifest = tracked.git("rev-parse", f"HEAD:{MODEL}")
    new = edit(tracked, "layer.1.weight")
    tracked.git("update-index", "--add", "--cacheinfo", f"100644,{manifest},{OTHER}")
    tracked.git("add", MODEL)
    tracked.git("commit", "-q", "-m", "two")
    tracked.git("checkout", "-q", OTHER)
    tracked.theta("status")
    assert_agreement(tracked, {MODEL: new})
    assert len(set(stores(tracked).values())) == 2


@pytest.mark.parametrize("program", ["git", "theta"])
def test_rename_keeps_the_store(tracked: Repo, program: str) -> None:
    old = digest(tracked)
    done = run_either(tracked, program, "mv", MODEL, OTHER)
    assert done.returncode == 0, done.stderr
    assert git_status(tracked) == [f"R  {MODEL} -> {OTHER}"]
    assert_agreement(tracked, {OTHER: old})
    tracked.git("commit", "-q", "-m", "renamed")
    assert stores(tracked) == {OTHER: MODEL}
    new = commit(tracked, "layer.1.weight", path=OTHER)
    assert_agreement(tracked, {OTHER: new})
    assert stores(tracked) == {OTHER: MODEL}


def test_rename_into_a_folder_with_a_change(tracked: Repo) -> None:
    (tracked.path / "sub").mkdir()
    tracked.git("mv", MODEL, "sub/")
    new = edit(tracked, "layer.1.weight", path=f"sub/{MODEL}")
    tracked.git("commit", "-q", "-am", "moved and changed")
    assert_agreement(tracked, {f"sub/{MODEL}": new})


@pytest.mark.parametrize("program", ["git", "theta"])
def test_a_second_file_at_a_used_name(tracked: Repo, program: str) -> None:
    old = digest(tracked)
    tracked.git("mv", MODEL, OTHER)
    tracked.git("commit", "-q", "-m", "renamed")
    new = new_model(tracked, MODEL, 9)
    run_either(tracked, program, "add", MODEL)
    assert_agreement(tracked, {MODEL: new, OTHER: old})
    tracked.git("commit", "-q", "-m", "second")
    assert_agreement(tracked, {MODEL: new, OTHER: old})
    found = stores(tracked)
    assert found[OTHER] == MODEL
    assert found[MODEL] not in ("", MODEL)


@pytest.mark.parametrize("program", ["git", "theta"])
def test_delete_and_add_again(tracked: Repo, program: str) -> None:
    old = digest(tracked)
    done = run_either(tracked, program, "rm", "-q", MODEL)
    assert done.returncode == 0, done.stderr
    if program == "theta":
        assert_agreement(tracked)
    assert git_status(tracked) == [f"D  {MODEL}"]
    tracked.git("commit", "-q", "-m", "gone")
    assert_agreement(tracked)
    new = new_model(tracked, MODEL, 9)
    run_either(tracked, program, "add", MODEL)
    tracked.git("commit", "-q", "-m", "back")
    assert_agreement(tracked, {MODEL: new})
    tracked.git("checkout", "-q", "HEAD~2")
    assert_agreement(tracked, {MODEL: old})


def test_a_checkpoint_becomes_a_folder_of_checkpoints(tracked: Repo) -> None:
    (tracked.path / MODEL).unlink()
    new = new_model(tracked, f"{MODEL}/part.safetensors", 3)
    tracked.git("add", "-A")
    tracked.git("commit", "-q", "-m", "folder")
    assert_agreement(tracked, {f"{MODEL}/part.safetensors": new})
    tracked.git("checkout", "-q", "HEAD~1")
    assert_agreement(tracked)


def test_an_executable_checkpoint_and_a_link(tracked: Repo) -> None:
    (tracked.path / MODEL).chmod(0o755)
    (tracked.path / "link.safetensors").symlink_to(MODEL)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "modes")
    assert git_status(tracked) == []
    modes = tracked.git("ls-files", "-s", "--", MODEL, "link.safetensors").split("\n")
    assert [row.split(" ")[0] for row in modes] == ["120000", "100755"]
    tracked.git("checkout", "-q", "HEAD~1")
    tracked.git("checkout", "-q", "main")
    assert (tracked.path / MODEL).stat().st_mode & 0o111
    assert (tracked.path / "link.safetensors").is_symlink()
    assert tracked.theta("status", "--porcelain").stdout == ""


def test_files_that_are_no_checkpoints(tracked: Repo) -> None:
    """Empty files, text and garbage are stored as they are."""
    contents = {"empty": b"", "text": b"hello\r\n", "garbage": bytes(range(256)) * 999, "short": b"\x01" * 7}
    for name, content in contents.items():
        tracked.write(f"{name}.safetensors", content)
    tracked.git("add", ".")
    tracked.git("commit", "-q", "-m", "garbage")
    want = {f"{name}.safetensors": digest(tracked, f"{name}.safetensors") for name in contents}
    assert_agreement(tracked, want)
    for path in want:
        (tracked.path / path).unlink()
    tracked.git("checkout", "-q", ".")
    assert_agreement(tracked, want)
