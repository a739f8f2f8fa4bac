"""``theta track``: what a pattern means, where it is written, and what it must not stand beside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.checks import refused
from tests.compat.story import MODEL, new_model
from tests.support import Repo
from theta.porcelain.setup import attribute_lines

ATTRIBUTES = "filter=theta diff=theta merge=text -text"
POINTER = f"""version https://git-lfs.github.com/spec/v1
oid sha256:{"4d" * 32}
size 12345
"""
LFS = "filter=lfs diff=lfs merge=lfs -text"


def inside(repo: Repo, folder: str) -> Repo:
    """The same repository for one who stands in ``folder``."""
    (repo.path / folder).mkdir(parents=True, exist_ok=True)
    return Repo(repo.path / folder, repo.ticks)


def attributes(repo: Repo, folder: str = "") -> list[str]:
    """The lines of a .gitattributes file, without the one of ``.theta/``."""
    text = (repo.path / folder / ".gitattributes").read_text()
    return [line for line in text.splitlines() if not line.startswith(".theta/")]


def is_tracked(repo: Repo, path: str) -> bool:
    """Return whether git gives the path to theta."""
    return repo.git("check-attr", "-z", "filter", "--", path).split("\0")[2] == "theta"


def test_b6_a_pattern_in_a_subfolder_is_of_that_folder(repo: Repo) -> None:
    """``track 'ckpt/*.pth'`` in team-a/, as git-lfs has it: a checkpoint there is stored as one."""
    new_model(repo, "team-a/ckpt/m.pth")
    new_model(repo, "team-b/ckpt/m.pth")
    team = inside(repo, "team-a")
    done = team.theta("track", "ckpt/*.pth", "*.npz")
    assert done.stdout.splitlines() == ["tracking ckpt/*.pth", "tracking *.npz", "no file matches *.npz yet"]
    assert attributes(repo, "team-a") == [f"ckpt/*.pth {ATTRIBUTES}", f"*.npz {ATTRIBUTES}"]
    assert (repo.path / ".gitattributes").read_text().startswith(".theta/** ")
    tracked = {path: is_tracked(repo, path) for path in ("team-a/x/d.npz", "team-b/data.npz", "data.npz")}
    assert tracked == {"team-a/x/d.npz": True, "team-b/data.npz": False, "data.npz": False}
    team.theta("commit", "-am", "base")
    assert repo.git("show", "HEAD:team-a/ckpt/m.pth").startswith("theta checkpoint 1\n")
    assert team.theta("ls-files").stdout == "ckpt/m.pth\n"
    assert repo.theta("ls-files").stdout == "team-a/ckpt/m.pth\n"
    listed = ["ckpt/*.pth (team-a/.gitattributes)", "*.npz (team-a/.gitattributes)"]
    assert repo.theta("track").stdout.splitlines() == listed


def test_b6_untrack_from_a_subfolder(repo: Repo) -> None:
    new_model(repo, "team-a/m.pth")
    team = inside(repo, "team-a")
    team.theta("track", "*.pth")
    team.theta("commit", "-am", "base")
    refused(repo.theta("untrack", "*.pth", code=13), 13, "not tracked by the .gitattributes of this folder")
    team.theta("untrack", "*.pth")
    assert not (repo.path / "team-a/.gitattributes").exists()
    assert not is_tracked(repo, "team-a/m.pth")
    assert not repo.try_git("show", ":team-a/m.pth").stdout.startswith("theta")


NAMES = [
    "model v1 [best].safetensors",
    "[attr]x.bin",
    "#first.bin",
    "!not.bin",
    '"quoted" name.bin',
    "back\\slash [1].bin",
    "tab\there.bin",
    "*star?[].bin",
    "deep [1]/a b.bin",
    "é [x].bin",
]


@pytest.mark.parametrize("name", NAMES)
def test_b6_the_name_of_a_file_is_the_file(repo: Repo, name: str) -> None:
    """Brackets, spaces, globs, quotes, a leading # or !: the file itself becomes a checkpoint."""
    new_model(repo, name)
    folder, _, base = name.rpartition("/")
    here = inside(repo, folder) if folder else repo
    assert "no file matches" not in here.theta("track", base).stdout
    assert is_tracked(repo, name)
    here.theta("add", base)
    assert repo.git("show", f":{name}").startswith("theta checkpoint 1\n")
    assert not is_tracked(repo, "other.bin")
    here.theta("untrack", base)
    assert not is_tracked(repo, name)


def test_b6_a_folder_stands_for_its_files(repo: Repo) -> None:
    new_model(repo, "my models/deep/m.bin")
    assert repo.theta("track", "my models/").stdout == "tracking my models/**\n"
    assert is_tracked(repo, "my models/deep/m.bin")
    assert not is_tracked(repo, "m.bin")
    repo.theta("untrack", "my models")
    assert not is_tracked(repo, "my models/deep/m.bin")


def test_b6_a_glob_with_spaces_stays_a_glob(repo: Repo) -> None:
    new_model(repo, "run 1/m [1].pt")
    repo.theta("track", "run ?/m [[]*.pt")
    assert is_tracked(repo, "run 1/m [1].pt")
    assert repo.theta("track").stdout == "run ?/m [[]*.pt\n"


@pytest.mark.parametrize("pattern", ["", "!*.pt", "../*.pt", "/abs/*.pt", ".theta/x"])
def test_b6_what_is_no_pattern_of_this_folder_is_refused(repo: Repo, pattern: str) -> None:
    assert repo.theta("track", pattern, code=2).stderr.startswith("error: ")
    assert not (repo.path / ".gitattributes").exists()


def test_b6_ignored_files_that_match_are_named(repo: Repo) -> None:
    repo.write(".gitignore", "*.pt\n")
    new_model(repo, "m.pt")
    done = repo.theta("track", "*.pt")
    assert "no file matches *.pt" in done.stdout
    assert "m.pt would match, but .gitignore excludes it" in done.stderr


@pytest.mark.parametrize(("line", "said"), [("m.bin !filter", "!filter"), ("m.bin -filter", "-filter")])
def test_b6_the_message_about_another_line_is_true(repo: Repo, line: str, said: str) -> None:
    new_model(repo, "sub/m.bin")
    repo.write("sub/.gitattributes", line + "\n")
    done = repo.theta("track", "*.bin", code=2)
    refused(done, 2, f"sub/m.bin has {said} from sub/.gitattributes:1")
    assert not (repo.path / ".gitattributes").exists()


def test_old_lines_of_theta_are_known(repo: Repo) -> None:
    old = [
        "*.pt filter=theta diff=theta -text",
        '"a b.bin" filter=theta diff=theta -text',
        "# note",
        "*.x text",
    ]
    repo.write(".gitattributes", "\n".join(old) + "\n")
    repo.theta("track", "*.pt")
    assert attributes(repo) == old
    assert repo.theta("track").stdout == "*.pt\na b.bin\n"
    repo.theta("untrack", "a b.bin", "*.pt")
    assert attributes(repo) == old[2:]


# -- Git LFS ------------------------------------------------------------------------------------


def test_b7_track_replaces_the_line_of_git_lfs(repo: Repo) -> None:
    """merge=lfs and diff=lfs do not stay in force, neither of this line nor of a wider one."""
    new_model(repo)
    repo.write(".gitattributes", f"*.safetensors {LFS} lockable\nmodel.* diff=lfs merge=lfs\n*.md text\n")
    repo.theta("track", "*.safetensors")
    assert attributes(repo) == [
        "*.safetensors lockable",
        "model.* diff=lfs merge=lfs",
        "*.md text",
        f"*.safetensors {ATTRIBUTES}",
    ]
    held = repo.git("check-attr", "filter", "diff", "merge", "text", "--", MODEL)
    assert [row.rpartition(": ")[2] for row in held.split("\n")] == ["theta", "theta", "text", "unset"]


def test_b7_track_refuses_while_files_are_pointers(repo: Repo) -> None:
    repo.write(MODEL, POINTER)
    repo.write(".gitattributes", f"*.safetensors {LFS}\n")
    done = repo.theta("track", "*.safetensors", code=2)
    refused(done, 2, f"{MODEL} is a Git LFS pointer")
    assert "git lfs pull" in done.stderr
    assert attributes(repo) == [f"*.safetensors {LFS}"]


@pytest.fixture
def pointer(repo: Repo) -> Repo:
    """A tracked pattern, a committed checkpoint beside, and a new pointer file."""
    repo.theta("track", "*.safetensors")
    new_model(repo, "real.safetensors")
    repo.theta("commit", "-am", "base")
    repo.write(MODEL, POINTER)
    return repo


@pytest.mark.parametrize("command", [["add", "."], ["commit", "-am", "x"]], ids="_".join)
def test_b7_a_pointer_is_never_stored_as_a_model(pointer: Repo, command: list[str]) -> None:
    done = pointer.theta(*command, code=3)
    refused(done, 3, f"{MODEL} is a Git LFS pointer, not the file itself")
    assert "git lfs pull" in done.stderr
    assert MODEL not in pointer.git("ls-files")


def test_b7_a_file_that_is_staged_as_a_pointer_is_to_be_added(pointer: Repo) -> None:
    """Git LFS had it under its own filter, before the pattern was tracked."""
    oid = pointer.git("hash-object", "-w", "--no-filters", MODEL)
    pointer.git("update-index", "--add", "--cacheinfo", f"100644,{oid},{MODEL}")
    new_model(pointer, MODEL)
    done = pointer.theta("commit", "-m", "x", code=3)
    refused(done, 3, f"{MODEL} is staged as a Git LFS pointer, not as the file itself")
    assert f"'theta add {MODEL}'" in done.stderr
    pointer.theta("add", MODEL)
    pointer.theta("commit", "-m", "x")


def test_b7_plain_git_and_the_filter(pointer: Repo) -> None:
    """The filter passes a pointer through with a line, so that git status lives; no commit takes it."""
    added = pointer.try_git("add", MODEL)
    assert (added.returncode, "Git LFS pointer" in added.stderr) == (0, True)
    assert pointer.git("show", f":{MODEL}") == POINTER.rstrip("\n")
    for program in (pointer.try_git, lambda *args: pointer.theta(*args, code=None)):
        done = program("commit", "-m", "x")
        assert done.returncode != 0
        assert f"{MODEL} is a Git LFS pointer" in done.stderr
    assert (
        f"{MODEL} is a Git LFS pointer, not the file itself; 'git lfs pull'" in pointer.theta("status").stdout
    )


def test_b7_pointers_of_the_past_are_left_alone(repo: Repo, tmp_path: Path) -> None:
    """A branch from before the migration: status is clean, other files and the real one are committed."""
    repo.write(MODEL, POINTER)
    repo.git("add", MODEL)
    repo.git("commit", "-q", "-m", "before")
    repo.write(".gitattributes", f"*.safetensors {ATTRIBUTES}\n")
    repo.theta("install")
    repo.theta("add", ".")
    repo.theta("commit", "-m", "attributes")
    (repo.path / MODEL).touch()
    assert repo.git("status", "--porcelain") == ""
    assert repo.theta("status", "--short").stdout == ""
    new_model(repo)
    repo.theta("commit", "-am", "migrated")
    assert repo.git("show", f"HEAD:{MODEL}").startswith("theta checkpoint 1\n")


@pytest.mark.parametrize("blank", ["\x1c", "\x1f", "\xa0", "\u2003"])
def test_blanks_of_unicode_are_letters_to_git(blank: str) -> None:
    name = f"{blank}a{blank}b.pt"
    line = attribute_lines.parse(f"{name} filter=theta x{blank}y")
    assert (line.pattern, line.attributes) == (name, ("filter=theta", f"x{blank}y"))
    assert attribute_lines.encoded(name) == name
    assert attribute_lines.encoded("a b") == "a[[:space:]]b"
