"""``theta lineage``: the trailers of all commands that make a version of others are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from numpy.typing import NDArray

import theta as repository
from tests.compat.inprocess import copied, theta
from tests.support import Repo, make_model
from theta.git.run import Git

MODEL = "m.safetensors"
Array = NDArray[Any]
RANDOM = np.random.default_rng(9)
W, BIAS = RANDOM.normal(size=(12, 6)).astype("<f4"), RANDOM.normal(size=6).astype("<f4")


def commit(repo: Repo, message: str, model: Mapping[str, Array], name: str = MODEL) -> str:
    place = repo.path / name
    place.parent.mkdir(parents=True, exist_ok=True)
    make_model(place, dict(model))
    theta(repo, "add", name)
    theta(repo, "commit", "-qm", message)
    return repo.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A base and two fine-tunes of it, on main and other."""
    repo = Repo.create(tmp_path_factory.mktemp("told") / "repo")
    theta(repo, "track", "*.safetensors")
    theta(repo, "add", ".")
    commit(repo, "base", {"w": W, "b": BIAS})
    repo.git("tag", "v1")
    theta(repo, "switch", "-q", "-c", "other")
    commit(repo, "theirs", {"w": W * 2, "b": BIAS})
    theta(repo, "switch", "-q", "main")
    commit(repo, "ours", {"w": W * 3, "b": BIAS})
    return repo


@pytest.fixture
def repo(begun: Repo, tmp_path: Path) -> Repo:
    return copied(begun, tmp_path / "repo")


def newest(repo: Repo, *args: str) -> dict[str, Any]:
    told = json.loads(theta(repo, "lineage", "--json", *args).out)["theta.lineage/v1"]
    found: dict[str, Any] = told["versions"][0]
    return found


def origins(repo: Repo, node: dict[str, Any]) -> list[tuple[str, str]]:
    """The subject and the path of each origin."""
    return [(repo.git("show", "-s", "--format=%s", one["commit"]), one["path"]) for one in node["origins"]]


def test_a_cherry_pick_is_of_the_version_that_was_picked(repo: Repo) -> None:
    theta(repo, "cherry-pick", "other", "-X", "average")
    node = newest(repo)
    picked = repo.git("rev-parse", "other")
    assert node["deed"] == "merged"
    assert node["detail"] == f"average, the change {repo.git('rev-parse', 'v1')[:10]}..{picked[:10]}"
    assert origins(repo, node) == [("ours", MODEL), ("theirs", MODEL)]
    assert f"from {picked[:10]} - theirs" in theta(repo, "lineage").out


def test_origins_apart_need_no_git_of_their_own(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    """Git walked from each of them: commits that did not change the checkpoint, on other branches."""
    listed: list[tuple[str, ...]] = []
    run = Git.run

    def spy(git: Git, *words: str, **more: Any) -> Any:
        listed.append(words)
        return run(git, *words, **more)

    wanted = []
    for name in ("one", "two", "three"):
        theta(repo, "switch", "-q", "-c", name, "v1")
        for text in ("a", "b"):
            repo.write("notes.txt", name + text)
            repo.git("add", "notes.txt")
            repo.git("commit", "-q", "-m", f"{name} {text}")
        wanted.append(repo.git("rev-parse", "HEAD"))
    theta(repo, "switch", "-q", "main")
    models = [{"model": oid, "parameters": {"weight": 1}} for oid in wanted]
    recipe = json.dumps([{"merge_method": "linear", "models": models}])
    commit(repo, f"composed\n\nTheta-Recipe: {recipe}", {"w": W * 9, "b": BIAS})
    monkeypatch.setattr(Git, "run", spy)
    node = newest(repo)
    assert (node["deed"], node["detail"]) == ("composed", "linear of 3 models")
    assert [one["commit"] for one in node["origins"]] == [repo.git("rev-parse", "v1^{commit}")]
    assert len([words for words in listed if words[0] == "rev-list"]) == 1


def test_a_squashed_merge_is_of_the_versions_that_it_took_in(repo: Repo) -> None:
    theta(repo, "merge", "--squash", "other", "-X", "average")
    theta(repo, "commit", "-qm", "squashed")
    node = newest(repo)
    assert node["detail"] == f"average, squashed {repo.git('rev-parse', 'other')[:10]}"
    assert origins(repo, node) == [("ours", MODEL), ("theirs", MODEL)]


def test_options_of_a_merge_are_told(repo: Repo) -> None:
    theta(repo, "merge", "-q", "other", "-X", "average", "--dtype", "bf16")
    assert newest(repo)["detail"] == "average, as bf16"


def test_a_recipe_is_of_its_models_wherever_they_are(repo: Repo, tmp_path: Path) -> None:
    theta(repo, "switch", "-q", "other")
    commit(repo, "elsewhere", {"w": W * 5, "b": BIAS}, "sub/x.safetensors")
    theta(repo, "switch", "-q", "main")
    place = tmp_path / "recipe.yml"
    weight = "parameters: {weight: 1}"
    place.write_text(
        f"name: mid\nmerge_method: linear\nmodels:\n  - {{model: v1, {weight}}}\n"
        f"  - {{model: 'other:sub', {weight}}}\n---\n"
        f"merge_method: linear\nmodels:\n  - {{model: main, {weight}}}\n  - {{model: mid, {weight}}}\n"
    )
    theta(repo, "merge", "--recipe", str(place))
    node = newest(repo, MODEL)
    assert (node["deed"], node["detail"]) == ("composed", "linear of 3 models")
    assert set(origins(repo, node)) == {("base", MODEL), ("elsewhere", "sub/x.safetensors"), ("ours", MODEL)}
    elsewhere = repo.git("rev-parse", "other")[:10]
    assert f"sub/x.safetensors of {elsewhere}" in theta(repo, "lineage", MODEL).out


def test_a_training_run_tells_its_steps(repo: Repo) -> None:
    with repository.open(repo.path) as opened, repository.Run(opened, "r1") as run:
        for step, loss in ((5, 0.5), (6, 0.25)):
            run.save(step, {MODEL: {"w": W + step, "b": BIAS}}, {"loss": loss}).result()
    told = theta(repo, "lineage", "--all", MODEL).out
    assert "step 6, loss=0.25, 1 changed" in told
    assert "theta/runs/r1" in told


def test_an_adapter_is_for_the_model_beside_it(repo: Repo) -> None:
    layer = "layers.0.weight"
    theta(repo, "switch", "-q", "-c", "layers")
    commit(repo, "before", {layer: W, "b": BIAS})
    commit(repo, "ours", {layer: W * 3, "b": BIAS})
    theta(repo, "extract-lora", "HEAD~1..HEAD", "--rank", "6", "-o", str(repo.path / "adapter"))
    theta(repo, "add", ".")
    theta(repo, "commit", "-qm", "adapter")
    node = newest(repo, "adapter/adapter_model.safetensors")
    assert (node["deed"], node["detail"]) == ("adapter", "of low rank for 1 of 1 module")
    assert origins(repo, node) == [("ours", MODEL)]


def test_the_picture_shows_origins_that_are_no_parents(repo: Repo, tmp_path: Path) -> None:
    theta(repo, "cherry-pick", "other", "-X", "average")
    place = tmp_path / "all.svg"
    theta(repo, "lineage", "--all", "--svg", str(place))
    drawn = ElementTree.parse(place)
    dashed = [one for one in drawn.findall(".//{*}path") if one.get("stroke-dasharray")]
    assert len(dashed) == 1
    assert "average, the change" in "".join(drawn.getroot().itertext())
