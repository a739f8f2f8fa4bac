"""Pages whose commands tell a story: each runs in its order, in a repository with a model."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import DOCS, Block
from tests.docs.shown import MODEL, run, run_all, stranger, tracked, train, with_history, with_runs
from tests.support import Repo, read_model
from tests.support.environment import ROOT
from theta.errors import ExitCode

pytestmark = pytest.mark.usefixtures("home")


IN_CONFLICT: Final = {"theta merge --dry-run side --html merge.html": 1}
"""A rehearsal whose branches changed the same tensor ends as the merge would."""


@pytest.mark.parametrize(
    "begin",
    [
        pytest.param(tracked, marks=pytest.mark.page("reviews", "console")),
        pytest.param(tracked, marks=pytest.mark.page("recovering", "console")),
        pytest.param(with_history, marks=pytest.mark.page("checking", "console")),
        pytest.param(with_history, marks=pytest.mark.page("reports", "console")),
    ],
)
def test_every_command_runs(begin: Callable[[Path], Repo], tmp_path: Path, page_blocks: list[Block]) -> None:
    run_all(begin(tmp_path / "repo"), page_blocks, codes=IN_CONFLICT)


@pytest.mark.page("adapters", "console")
def test_how_an_adapter_is_stored_is_shown(tmp_path: Path, page_blocks: list[Block]) -> None:
    said = run_all(tracked(tmp_path / "repo"), page_blocks)
    assert "lowrank" in said[f"theta show --codecs HEAD:{MODEL}"]


@pytest.mark.page("tutorial", "console")
def test_the_tutorial_ends_with_what_it_says(tmp_path: Path, page_blocks: list[Block]) -> None:
    repo = stranger(tmp_path / "repo")
    said = run_all(repo, page_blocks)
    assert len(repo.git("rev-list", "--parents", "-1", "main").split()) == 3
    assert "average" in said["theta merge --dry-run rte -X average"]
    assert "no problems" in said["theta fsck --read-data"]
    elsewhere = repo.path.parent / "elsewhere" / MODEL
    assert elsewhere.read_bytes() == (repo.path / MODEL).read_bytes()


@pytest.mark.page("remotes", "console")
def test_remotes_do_what_the_page_says(tmp_path: Path, page_blocks: list[Block]) -> None:
    """The bundle is applied where the last commit is not there."""
    lazily, filled, big, mail, prune, push = page_blocks
    origin = with_runs(tmp_path / "models")
    known = {"URL": origin.path.as_uri(), "BIG": origin.path.as_uri()}
    places = [Repo(tmp_path / name) for name in ("lazy", "large")]
    for place, block in zip(places, (lazily, big), strict=True):
        place.path.mkdir()
        run_all(place, [block], known)
    lazy, large = (Repo(place.path / "models") for place in places)
    assert read_model(large.path / MODEL).keys() == read_model(origin.path / MODEL).keys()
    assert (lazy.path / MODEL).read_bytes().startswith(b"theta checkpoint 1")
    run_all(lazy, [filled])
    assert (lazy.path / MODEL).read_bytes() == (origin.path / MODEL).read_bytes()
    create, apply = mail.commands
    run(origin, create, 0)
    run_all(origin.clone(tmp_path / "whole"), [prune, push])
    origin.git("reset", "-q", "--hard", "main~1")
    assert "version 2" not in origin.git("log", "--format=%s")
    run(origin, apply, 0)
    assert "version 2" in origin.git("log", "--format=%s")


@pytest.mark.page("other-tools", "console")
def test_theta_commits_beside_jj(tmp_path: Path, page_blocks: list[Block]) -> None:
    """HEAD is detached, as jj leaves it; its own lines are read only, since it is not to be had here."""
    repo = tracked(tmp_path / "repo")
    repo.git("checkout", "-q", "--detach")
    repo.write(f"models/{MODEL}", (repo.path / MODEL).read_bytes())
    lines = [line for block in page_blocks for line in block.commands]
    for line in lines:
        if not line.startswith("jj "):
            run(repo, line, 0)
    assert [line.split()[1] for line in lines if line.startswith("jj ")] == ["git", "sparse", "new"]
    assert repo.git("log", "-1", "--format=%s") == "step 4000"


@pytest.mark.page("sync", "console")
def test_folders_follow_as_the_page_says(tmp_path: Path, page_blocks: list[Block]) -> None:
    """The follower looks once: it would not end, and its server is not there to be told."""
    repo = with_runs(tmp_path / "repo")
    folder = tmp_path / "served"
    known = {
        "/srv/model": str(folder),
        "https://example.com/models.git": repo.path.as_uri(),
        "r1 --into": "r1 --once --into",
        "kill -HUP $(cat server.pid)": f"touch {tmp_path}/told",
    }
    apply, follow = page_blocks
    assert "theta follow" in follow.commands[0]
    run_all(repo, [apply], known | {"r1 --into": "r1 --into"})
    assert (folder / MODEL).exists()
    run_all(repo, [follow], known | {"/srv/model": str(tmp_path / "follower")})
    assert read_model(tmp_path / "follower" / MODEL).keys() == read_model(folder / MODEL).keys()
    assert (tmp_path / "told").exists()


def pointer(repo: Repo, content: bytes) -> str:
    """Put content into the cache of Git LFS, as its clean filter does; returns the pointer."""
    digest = hashlib.sha256(content).hexdigest()
    repo.write(f".git/lfs/objects/{digest[:2]}/{digest[2:4]}/{digest}", content)
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"


def with_lfs(place: Path) -> Repo:
    """Three versions of a model by Git LFS, one of another model as a plain blob, and an empty remote."""
    repo = tracked(place)
    contents = []
    for step in range(3):
        train(repo, ["embed.weight"], step)
        contents.append((repo.path / MODEL).read_bytes())
    repo = Repo.create(place.parent / "lfs")
    repo.git("init", "-q", "--bare", "../remote.git")
    repo.git("remote", "add", "origin", "../remote.git")
    repo.write(".gitattributes", f"{MODEL} filter=lfs diff=lfs merge=lfs -text\n")
    for number, content in enumerate(contents):
        repo.write(MODEL, pointer(repo, content))
        repo.write("plain/other.safetensors", contents[0])
        repo.git("add", ".")
        repo.git("commit", "-q", "-m", f"version {number}")
    return repo


@pytest.mark.page("migrating", "console")
def test_histories_come_and_go_as_the_page_says(tmp_path: Path, page_blocks: list[Block]) -> None:
    repo = with_lfs(tmp_path / "repo")
    coming, plain, back, leaving = page_blocks
    before = repo.git("rev-parse", "HEAD")
    run_all(repo, [coming])
    assert repo.git("show", f"HEAD~2:{MODEL}").startswith("theta checkpoint 1")
    run_all(repo, [back])
    assert repo.git("rev-parse", "main~1") == before
    assert repo.git("ls-remote", "origin", "refs/heads/main").startswith(repo.git("rev-parse", "main"))
    run_all(repo, [plain])
    assert repo.git("show", "HEAD:plain/other.safetensors").startswith("theta checkpoint 1")
    assert before in (repo.path / "map.txt").read_text()
    repo.git("clean", "-fq")
    run(repo, back.commands[3], 0)  # as long as the history before is kept, nothing else is migrated
    *exports, uninstall = leaving.commands
    for number, line in enumerate(exports):
        other = repo.copy(tmp_path / str(number))
        run(other, line, 0)
        assert not other.git("ls-tree", "HEAD").endswith("\t.theta")
    run(repo, uninstall, 0)


def test_every_page_has_its_place_on_the_site() -> None:
    named = (ROOT / "mkdocs.yml").read_text().split()
    assert {page.name for page in DOCS.glob("*.md")} <= set(named)


def test_every_exit_code_has_its_line() -> None:
    text = (DOCS / "troubleshooting.md").read_text()
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert [(int(code), name.strip()) for code, name in rows] == [
        (code.value, code.name) for code in ExitCode
    ]


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_pictures_and_pages_that_are_named_are_there(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", page.read_text()):
        made = target in ("commands.md", "api.md")  # with each build of the site
        assert made or (page.parent / target).exists(), target
