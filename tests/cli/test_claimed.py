"""Files that another line of attributes claims: of a folder from Hugging Face, of Git LFS, of a macro."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.checks import refused
from tests.compat.story import MODEL, new_model
from tests.support import Repo

OURS = "*.safetensors filter=theta diff=theta merge=text -text"
LFS = "filter=lfs diff=lfs merge=lfs -text"
SHIPPED = f"*.7z {LFS}\n*.bin {LFS}\n*.safetensors {LFS}\n*tfevents* {LFS}\n"
"""The shape of the file that Hugging Face writes into each repository."""
INNER = f"minilm/{MODEL}"


@pytest.fixture
def shipped(repo: Repo) -> Repo:
    """A folder from Hugging Face in a new repository of theta's."""
    repo.theta("init")
    repo.write("minilm/.gitattributes", SHIPPED)
    new_model(repo, INNER)
    return repo


def held(repo: Repo, path: str) -> list[str]:
    fields = repo.git("check-attr", "-z", "filter", "diff", "merge", "text", "--", path).split("\0")
    return fields[2::3]


def overridden(repo: Repo, *patterns: str, path: str = INNER) -> str:
    """Track with ``--override``; the file is theta's then, and becomes a checkpoint."""
    done = repo.theta("track", "--override", *patterns)
    assert held(repo, path) == ["theta", "theta", "text", "unset"]
    repo.theta("add", ".")
    repo.theta("commit", "-m", "base")
    assert repo.git("show", f"HEAD:{path}").startswith("theta checkpoint 1\n")
    return done.stdout


def test_a_folder_of_hugging_face_is_refused_with_file_line_and_mend(shipped: Repo) -> None:
    done = shipped.theta("track", "*.safetensors", code=2)
    refused(done, 2, f"{INNER} has filter=lfs from minilm/.gitattributes:3")
    assert "theta track --override '*.safetensors'" in done.stderr
    assert not (shipped.path / ".gitattributes").exists()


def test_override_writes_the_last_line_of_the_nearest_file(shipped: Repo) -> None:
    told = overridden(shipped, "*.safetensors")
    assert "minilm/.gitattributes: theta's line for *.safetensors is the last" in told
    assert (shipped.path / "minilm/.gitattributes").read_text() == f"{SHIPPED}{OURS}\n"
    assert "nothing is wrong" in shipped.theta("doctor").stdout
    again = shipped.theta("track", "--override", "*.safetensors")
    assert (again.stdout, again.stderr) == ("", "")
    assert (shipped.path / "minilm/.gitattributes").read_text() == f"{SHIPPED}{OURS}\n"


@pytest.mark.parametrize("pattern", ["minilm", "minilm/*.safetensors", f"min*/{MODEL}"])
def test_override_by_a_path_names_the_file_in_its_folder(shipped: Repo, pattern: str) -> None:
    overridden(shipped, pattern)
    assert f"/{MODEL} filter=theta" in (shipped.path / "minilm/.gitattributes").read_text()


def test_the_glob_is_tracked_for_the_files_that_nothing_claims(shipped: Repo) -> None:
    new_model(shipped)
    done = shipped.theta("track", "*.safetensors")
    assert "tracking *.safetensors" in done.stdout
    assert f"{INNER} has filter=lfs from minilm/.gitattributes:3; to give it to theta" in done.stderr
    assert [held(shipped, path)[0] for path in (MODEL, INNER)] == ["theta", "lfs"]


def test_override_in_a_folder_leaves_the_others(shipped: Repo) -> None:
    shutil.copytree(shipped.path / "minilm", shipped.path / "other")
    Repo(shipped.path / "minilm", shipped.ticks).theta("track", "--override", "*.safetensors")
    assert [held(shipped, f"{name}/{MODEL}")[0] for name in ("minilm", "other")] == ["theta", "lfs"]
    assert (shipped.path / "other/.gitattributes").read_text() == SHIPPED


CLAIMS = {
    "-filter": ("minilm/.gitattributes", f"{MODEL} -filter", "-filter"),
    "!filter": ("minilm/.gitattributes", "model* !filter", "!filter"),
    "above": ("minilm/.gitattributes", "deep/** filter=git-crypt", "filter=git-crypt"),
    "deep": ("minilm/deep/.gitattributes", "*.safetensors filter=lfs", "filter=lfs"),
    "rooted": ("minilm/deep/.gitattributes", f"/{MODEL} filter=lfs", "filter=lfs"),
    "own": (".git/info/attributes", "*.safetensors filter=lfs", "filter=lfs"),
    "own path": (".git/info/attributes", f"minilm/deep/{MODEL} -filter", "-filter"),
    "macro": ("minilm/.gitattributes", "*.safetensors large", "filter=lfs"),
    "space": ("minilm/.gitattributes", '"model.safetensors" filter=lfs', "filter=lfs"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_every_line_that_holds_is_found_and_overridden(repo: Repo, name: str) -> None:
    file, line, said = CLAIMS[name]
    path = f"minilm/deep/{MODEL}"
    repo.theta("init")
    repo.write(".gitattributes", f"[attr]large {LFS}\n*.safetensors filter=lfs\n")
    new_model(repo, path)
    place = repo.path / file
    before = (place.read_text() if place.exists() else "") + "# of others\n*.md text\n"
    repo.write(file, f"{before}{line}\n* -export-ignore\n")
    number = before.count("\n") + 1
    refused(repo.theta("track", "*.safetensors", code=2), 2, f"{path} has {said} from {file}:{number}")
    told = overridden(repo, "*.safetensors", path=path)
    assert f"{file}" in told
    assert place.read_text().startswith(f"{before}{line}\n* -export-ignore\n")


@pytest.mark.parametrize("line", ["merge=union", "diff=lfs merge=lfs", "text=auto eol=crlf", "binary"])
def test_attributes_beside_the_filter_are_told_and_overridden(repo: Repo, line: str) -> None:
    new_model(repo, INNER)
    repo.write("minilm/.gitattributes", f"*.safetensors {line}\n")
    done = repo.theta("track", "*.safetensors")
    assert "from minilm/.gitattributes:1; to give it to theta" in done.stderr
    overridden(repo, "*.safetensors")


def test_an_attributes_file_that_only_the_index_has_is_read(shipped: Repo) -> None:
    shipped.git("add", "minilm/.gitattributes")
    (shipped.path / "minilm/.gitattributes").unlink()
    refused(shipped.theta("track", "*.safetensors", code=2), 2, "filter=lfs from minilm/.gitattributes:3")


def test_macros_that_name_each_other_end(repo: Repo) -> None:
    words = "a b " * 40
    repo.write(".gitattributes", f"[attr]a {words}\n[attr]b {words}\n")
    repo.write("minilm/.gitattributes", f"*.safetensors {LFS}\n* a b\n")
    new_model(repo, INNER)
    refused(repo.theta("track", "*.safetensors", code=2), 2, "filter=lfs from minilm/.gitattributes:1")


def test_what_cannot_be_overridden_changes_nothing(shipped: Repo) -> None:
    """The pointer is refused after the lines were written: they are taken back."""
    shipped.write(INNER, "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 9\n")
    done = shipped.theta("track", "--override", "*.safetensors", code=2)
    refused(done, 2, f"{INNER} is a Git LFS pointer")
    assert (shipped.path / "minilm/.gitattributes").read_text() == SHIPPED
    assert not (shipped.path / ".gitattributes").exists()


# -- warnings ------------------------------------------------------------------------------------

WARNING = f"{INNER} goes to Git LFS by minilm/.gitattributes:3; to give it to theta: theta track --override"


@pytest.fixture(params=["with git-lfs", "without git-lfs"])
def with_or_without(request: pytest.FixtureRequest, shipped: Repo) -> Repo:
    """The same folder where Git LFS is set up, and where it is not: then the bytes are committed."""
    if request.param == "with git-lfs":
        if shutil.which("git-lfs") is None:
            pytest.skip("git-lfs is not installed")
        shipped.git("lfs", "install", "--local", "--skip-repo")
    return shipped


def test_add_and_commit_warn_and_the_command_mends(with_or_without: Repo) -> None:
    repo = with_or_without
    assert WARNING in repo.theta("add", ".").stderr
    done = repo.theta("commit", "-m", "base")
    assert WARNING in done.stderr
    command = done.stderr.partition("to give it to theta: ")[2].splitlines()[0]
    for line in command.split(" && "):
        repo.theta(*line.replace("'", "").split()[1:])
    repo.theta("commit", "-m", "mended")
    assert repo.git("show", f"HEAD:{INNER}").startswith("theta checkpoint 1\n")


def test_plain_git_warns_by_the_hook(with_or_without: Repo) -> None:
    with_or_without.git("add", ".")
    assert WARNING in with_or_without.try_git("commit", "-m", "base").stderr


def test_a_folder_below_has_the_command_for_the_root(shipped: Repo) -> None:
    beside = shipped.path / "docs"
    beside.mkdir()
    done = Repo(beside, shipped.ticks).theta("add", "../minilm")
    assert "theta -C .. track --override '*.safetensors' && theta add ../minilm/" in done.stderr


def test_lines_that_are_meant_for_git_lfs_are_left_in_peace(with_or_without: Repo) -> None:
    """A line that gave files to Git LFS before theta came, or has others there already, is meant."""
    repo = with_or_without
    repo.git("add", ".")
    repo.git("commit", "-q", "--no-verify", "-m", "before theta")
    pointers = repo.git("show", f"HEAD:{INNER}").startswith("version https://git-lfs")
    new_model(repo)
    repo.theta("track", "*.safetensors")
    new_model(repo, "minilm/second.safetensors")
    repo.theta("add", MODEL)
    assert ("Git LFS" in repo.theta("add", ".").stderr) is not pointers
    repo.theta("commit", "-m", "theta came")
    assert "nothing is wrong" in repo.theta("doctor").stdout


def test_doctor_tells_of_a_line_that_came_after_theta(with_or_without: Repo) -> None:
    repo = with_or_without
    os.rename(repo.path / "minilm", repo.path.parent / "minilm")
    new_model(repo)
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "first")
    os.rename(repo.path.parent / "minilm", repo.path / "minilm")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "from the hub")
    told = repo.theta("doctor", code=None).stdout
    assert f"{INNER} goes to Git LFS by minilm/.gitattributes:3" in told
    assert "theta track --override '*.safetensors'" in told


def test_a_repository_without_theta_hears_nothing(repo: Repo, tmp_path: Path) -> None:
    repo.write("minilm/.gitattributes", SHIPPED)
    new_model(repo, INNER)
    assert "Git LFS" not in repo.theta("add", ".").stderr
    assert "Git LFS" not in repo.theta("commit", "-m", "base").stderr


def test_add_refuses_to_turn_a_checkpoint_into_a_pointer_and_says_how(repo: Repo) -> None:
    new_model(repo, INNER)
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "base")
    repo.write("minilm/.gitattributes", SHIPPED)
    done = repo.theta("add", INNER, code=2)
    refused(done, 2, f"{INNER} is a checkpoint, and has filter=lfs from minilm/.gitattributes:3")
    assert "theta track --override '*.safetensors'" in done.stderr
    overridden(repo, "*.safetensors")
