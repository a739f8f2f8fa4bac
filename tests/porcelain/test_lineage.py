"""``theta lineage``: which version came from which, and by what."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.compat.story import NO_HOOKS
from tests.support import Repo, make_model
from theta.errors import NotFoundError, UsageError
from theta.porcelain.lineage import averaging, tracing
from theta.porcelain.lineage.tracing import LineageRequest, VersionNode
from theta.porcelain.merge import trailers
from theta.porcelain.workspace.session import Session

MODEL = "m.safetensors"
Model = Mapping[str, NDArray[Any]]
RANDOM = np.random.default_rng(3)
W = RANDOM.normal(size=(256, 192)).astype("<f4")
BIAS = RANDOM.normal(size=40).astype("<f4")


def commit(repo: Repo, message: str, model: Model, name: str = MODEL) -> None:
    make_model(repo.path / name, dict(model))
    repo.theta("add", name)
    repo.theta("commit", "-qm", message)


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A model that was trained, given a LoRA, cast, trimmed, grown, merged, averaged and renamed."""
    repo = Repo.create(tmp_path_factory.mktemp("lineage") / "repo")
    repo.theta("track", "*.safetensors")
    repo.theta("add", ".")
    commit(repo, "base", {"w": W, "b": BIAS})
    repo.git("tag", "v1")
    commit(
        repo,
        "trained",
        {"w": W + np.float32(0.01) * RANDOM.normal(size=W.shape).astype("<f4"), "b": BIAS + 1},
    )
    repo.theta("switch", "-q", "-c", "lora", "v1")
    factors = RANDOM.normal(size=(256, 2)) @ RANDOM.normal(size=(2, 192)) * 0.1
    commit(repo, "lora", {"w": W + factors.astype("<f4"), "b": BIAS})
    repo.theta("switch", "-q", "main")
    repo.theta("merge", "-q", "-X", "average", "lora")
    repo.theta("average", "v1", "lora", "main", "--shape", "wma", "--commit", "-m", "mean")
    commit(repo, "half", {"w": W.astype("<f2"), "b": BIAS.astype("<f2")})
    commit(repo, "less", {"w": W.astype("<f2")})
    commit(repo, "more", {"w": W.astype("<f2"), "head": BIAS})
    commit(repo, "rows", {"w": np.concatenate([W, W[:4]]).astype("<f2"), "head": BIAS})
    repo.theta("mv", MODEL, "new.safetensors")
    repo.theta("commit", "-qm", "moved")
    (repo.path / "note").write_text("beside")
    repo.git("add", "note")
    repo.git("commit", "-qm", "not about the model")
    return repo


def found(repo: Repo, **request: Any) -> dict[str, VersionNode]:
    """Subject -> version."""
    result = tracing.lineage(Session.here(repo.path), LineageRequest(**request))
    return {node.subject: node for node in result.nodes.values()}


def test_a_commit_that_changes_only_its_store_is_no_version(repo: Repo, tmp_path: Path) -> None:
    known, copy = found(repo).keys(), repo.copy(tmp_path / "copy")
    copy.git(*NO_HOOKS, "rm", "-r", "-q", "--cached", "--sparse", ".theta")
    copy.git(*NO_HOOKS, "commit", "-qm", "a strange folder")
    assert found(copy).keys() == known


def test_each_version_says_what_it_came_from_and_by_what(repo: Repo) -> None:
    nodes = found(repo)
    told = {subject: (node.deed, node.detail) for subject, node in nodes.items()}
    assert told == {
        "moved": ("renamed", f"from {MODEL}"),
        "rows": ("resized", "(256, 192) to (260, 192)"),
        "more": ("extended", "1 added of 2 tensors"),
        "less": ("trimmed", "1 deleted of 2 tensors"),
        "half": ("cast", "f32 to f16"),
        "mean": ("averaged", "wma of 3 versions"),
        "Merge branch 'lora'": ("merged", "average"),
        "lora": ("low-rank", "1 changed of 2 tensors"),
        "trained": ("trained", "2 changed of 2 tensors"),
        "base": ("added", "2 tensors"),
    }
    by_commit = {node.commit: subject for subject, node in nodes.items()}
    origins = {
        subject: [by_commit[origin.commit] for origin in node.origins] for subject, node in nodes.items()
    }
    assert origins["Merge branch 'lora'"] == ["trained", "lora"]
    assert origins["mean"] == ["base", "lora", "Merge branch 'lora'"]
    assert origins["base"] == []
    assert nodes["base"].names == ("v1",)
    assert nodes["base"].path == MODEL
    assert nodes["moved"].path == "new.safetensors"


def test_other_branches_and_older_revisions_are_where_it_begins(repo: Repo) -> None:
    assert set(found(repo, revisions=["lora"], path=MODEL)) == {"base", "lora"}
    repo.theta("switch", "-q", "-c", "aside", "v1")
    commit(repo, "aside", {"w": W * 3, "b": BIAS})
    repo.theta("switch", "-q", "main")
    assert "aside" not in found(repo)
    assert found(repo, everywhere=True)["aside"].names == ("aside",)


def test_a_file_that_was_made_of_another_says_so(repo: Repo, tmp_path: Path) -> None:
    clone = Repo(tmp_path / "clone")
    repo.theta("clone", "-q", str(repo.path), str(clone.path))
    clone.git("config", "user.name", "a")
    clone.git("config", "user.email", "a@b.c")
    clone.theta("convert", "new.safetensors", "-o", "m.npz")
    clone.theta("track", "*.npz")
    clone.theta("add", ".")
    clone.theta("commit", "-qm", "npz")
    (node,) = found(clone, path="m.npz").values()
    assert (node.deed, node.detail) == ("converted", "safetensors to npz")
    assert [origin.path for origin in node.origins] == ["new.safetensors"]
    with pytest.raises(UsageError, match="which checkpoint"):
        found(clone)


def test_the_command_draws_a_graph(repo: Repo, tmp_path: Path) -> None:
    lines = repo.theta("lineage").stdout.splitlines()
    assert any(line.startswith("|\\") for line in lines)
    assert any("averaged: wma of 3 versions" in line and line.startswith("*") for line in lines)
    assert not any("not about the model" in line for line in lines)
    body = json.loads(repo.theta("lineage", "--json", "new.safetensors").stdout)["theta.lineage/v1"]
    assert body["path"] == "new.safetensors"
    assert len(body["versions"]) == 10
    assert repo.theta("lineage", "lora", MODEL).stdout.count("\n") == 2
    picture = tmp_path / "graph.svg"
    repo.theta("lineage", "--svg", str(picture))
    drawn = ElementTree.parse(picture)
    assert len(drawn.findall(".//{*}circle")) == 10
    assert len(drawn.findall(".//{*}path")) == 12
    assert b"http" not in picture.read_bytes().replace(b"http://www.w3.org/2000/svg", b"")


@pytest.mark.parametrize(
    ("trailer", "told"),
    [
        *(
            (f"Theta-Average: {text}", ("averaged", "unreadable trailer"))
            for text in ("a", "--shape", "--path 'm")
        ),
        *(
            (f"Theta-Merge: {text}", ("merged", "unreadable trailer"))
            for text in (
                "-X",
                "-X 'a",
                "-X ties:density=x",
                "-X nosuch:a=1",
                "--rule a",
                "--seed x",
                "--what y",
            )
        ),
        (
            f"Theta-Average: --shape wma --path {MODEL} nowhere HEAD {'0' * 40}",
            ("averaged", "wma of 3 versions"),
        ),
        (
            f"Theta-Average: --shape wma --path other.safetensors {'0' * 40}",
            ("cast", "f16 to f32"),
        ),
    ],
)
def test_a_malformed_trailer_is_that_of_one_commit(repo: Repo, trailer: str, told: tuple[str, str]) -> None:
    tree = repo.git("rev-parse", "HEAD~5^{tree}")
    first = repo.git("commit-tree", tree, "-m", "first")
    message = f"odd\n\n{trailer}"
    oid = repo.git("commit-tree", repo.git("rev-parse", "v1^{tree}"), "-p", first, "-m", message)
    nodes = found(repo, path=MODEL, revisions=[oid])
    assert (nodes["odd"].deed, nodes["odd"].detail) == told
    assert {origin.commit for origin in nodes["odd"].origins} <= {first}
    assert set(nodes) == {"odd", "first"}
    if "unreadable" in told[1]:
        with pytest.raises(UsageError, match=f"{oid[:12]} has a malformed Theta-"):
            averaging.again(Session.here(repo.path), oid)
            trailers.rounds(Session.here(repo.path), oid)


def test_names_and_messages_may_have_any_character(repo: Repo, tmp_path: Path) -> None:
    name = "a\u2028b\x85c\ufffe\udcff"
    message = "esc \x1b[31m \x01 \u2028 & <b>".encode()
    (tmp_path / "message").write_bytes(message)
    oid = repo.git("commit-tree", "v1^{tree}", "-F", str(tmp_path / "message"))
    repo.git("branch", name, oid)
    try:
        (node,) = found(repo, path=MODEL, revisions=[oid]).values()
        assert node.names == (name,)
        picture = tmp_path / "graph.svg"
        repo.theta("lineage", oid, MODEL, "--svg", str(picture))
    finally:
        repo.git("branch", "-D", name)
    drawn = "".join(ElementTree.parse(picture).getroot().itertext())
    assert r"(a\u2028b\x85c\ufffe\xff) added: 2 tensors - esc \x1b[31m \x01 \u2028 & <b>" in drawn


def test_a_picture_writes_over_nothing_unless_forced(repo: Repo, tmp_path: Path) -> None:
    place = tmp_path / "m.safetensors"
    place.write_bytes(b"mine")
    assert "is there already" in repo.theta("lineage", "--svg", str(place), code=14).stderr
    assert place.read_bytes() == b"mine"
    repo.theta("lineage", "--force", "--svg", str(place))
    assert place.read_bytes().startswith(b"<svg")
    assert "there is no folder" in repo.theta("lineage", "--svg", str(tmp_path / "no/a.svg"), code=13).stderr


def test_what_is_no_checkpoint_is_an_error(repo: Repo) -> None:
    with pytest.raises(NotFoundError, match="no checkpoint note"):
        found(repo, path="note")
    assert "no checkpoint" in repo.theta("lineage", "nowhere", code=13).stderr
