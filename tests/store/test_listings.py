"""Manifests in groups: what is listed comes back, merges as text, and cannot lie."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import Repo, make_model, random_tensors, read_model, sha256
from theta.errors import CorruptError, ManifestError
from theta.git.object_format import SHA1
from theta.git.repository import Repository
from theta.porcelain.stage import staging
from theta.porcelain.workspace.session import Session
from theta.store import closure
from theta.store.format import listings
from theta.store.format.manifest import Line, Manifest, NameGroup, parse
from theta.store.odb.objects import Objects
from theta.store.odb.packs import PackWriter

NAMES = st.one_of(
    st.text(max_size=12),
    st.text("ab.", max_size=40),
    st.builds("layers.{}.mlp.experts.{}.w".format, st.integers(0, 30), st.integers(0, 30)),
)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Groups from 600 bytes on: a handful of tensors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listings, "PLAIN", 600)
        patch.setattr(listings, "LISTING", 500)
        yield


def manifest(names: list[str], seed: int = 0) -> Manifest:
    dice = random.Random(seed)
    lines = (
        Line(name, "f32", (2,), f"{dice.getrandbits(256):064x}", f"{dice.getrandbits(160):040x}")
        for name in names
    )
    return Manifest("safetensors", "m", "0" * 40, tuple(lines))


def written(plain: Manifest) -> Manifest:
    """``plain`` as it is staged, without a repository."""
    return listings.write(PackWriter(Path(), lambda oid: True, SHA1), plain)


def listed(arranged: Manifest, plain: Manifest) -> list[bytes]:
    by_name = plain.by_name
    names = iter(sorted(by_name))
    return ["".join(by_name[next(names)].text() for _ in range(g.count)).encode() for g in arranged.groups]


@given(st.lists(NAMES, max_size=60, unique=True))
def test_every_tensor_is_in_one_group(names: list[str]) -> None:
    plain = manifest(names)
    arranged = written(plain)
    assert bool(arranged.groups) == (len(plain.data) > listings.PLAIN)
    if arranged.groups:
        texts = listed(arranged, plain)
        assert all(
            len(text) <= listings.LISTING or group.count == 1
            for text, group in zip(texts, arranged.groups, strict=True)
        )
        assert parse(arranged.data, lambda _: texts) == arranged
        assert len({group.prefix for group in arranged.groups}) == len(arranged.groups)
    assert set(arranged.lines) == set(plain.lines)
    assert written(arranged) == arranged


def test_names_that_are_prefixes_of_each_other_a_thousand_times() -> None:
    names = ["a" * count for count in range(1, 2700)]
    assert sum(group.count for group in written(manifest(names)).groups) == len(names)


def test_one_change_changes_one_group() -> None:
    names = [f"layers.{layer}.{part}" for layer in range(12) for part in "abcd"]
    one = written(manifest(names))
    line = one.lines[17]
    lines = tuple(replace(line, digest="f" * 64) if other is line else other for other in one.lines)
    two = written(replace(one, lines=lines))
    assert [a.prefix for a, b in zip(one.groups, two.groups, strict=True) if a != b] == ["layers.2.b"]


GOOD = manifest([f"layers.{layer}.w" for layer in range(8)])
LIES = {
    "another listing": lambda group, data: (group, data.replace(b"f32", b"i32")),
    "a missing tensor": lambda group, data: (group, data[: data.index(b"end ")]),
    "a wrong number": lambda group, data: (replace(group, count=group.count + 1), data),
    "another prefix": lambda group, data: (replace(group, prefix="other"), data),
    "bytes behind the lines": lambda group, data: (group, data + b"x"),
}


@pytest.mark.parametrize("what", LIES)
def test_a_listing_that_lies_is_refused(what: str) -> None:
    arranged = written(GOOD)
    texts = listed(arranged, GOOD)
    group, texts[1] = LIES[what](arranged.groups[1], texts[1])
    if what != "another listing":
        group = replace(group, digest=hashlib.sha256(texts[1]).hexdigest())
    groups = (arranged.groups[0], group, *arranged.groups[2:])
    with pytest.raises(ManifestError):
        parse(replace(arranged, groups=groups).data, lambda _: texts)


def test_a_tensor_in_two_groups_is_refused() -> None:
    arranged = written(GOOD)
    texts = listed(arranged, GOOD)
    again = NameGroup("layers", *list(vars(arranged.groups[0]).values())[1:])
    twice = replace(arranged, groups=(*arranged.groups, again))
    with pytest.raises(ManifestError, match="twice"):
        parse(twice.data, lambda _: [*texts, texts[0]])


def test_groups_without_their_listings_are_refused() -> None:
    with pytest.raises(ManifestError):
        parse(written(GOOD).data)


# -- in a repository ---------------------------------------------------------------------------

MODEL = "m.safetensors"
SHAPES = {f"layers.{layer}.{part}": (4, 3) for layer in range(6) for part in ("k", "q")}


def write(repo: Repo, **seeds: int) -> str:
    tensors = random_tensors(SHAPES)
    for name, seed in seeds.items():
        layer, part = name.split("_")
        name = f"layers.{layer[1:]}.{part}"
        tensors[name] = random_tensors({name: (4, 3)}, seed)[name]
    return sha256(make_model(repo.path / MODEL, tensors))


def commit(repo: Repo, message: str) -> None:
    """Stage in this process, where groups are small."""
    session = Session(Repository.discover(repo.path))
    with session.change():
        staging.add_files(session, [MODEL])
    repo.git("commit", "-q", "-m", message)


@pytest.fixture
def grouped(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> Repo:
    repo.theta("track", "*.safetensors")
    monkeypatch.chdir(repo.path)
    write(repo)
    commit(repo, "base")
    assert "    group [" in repo.git("show", f"HEAD:{MODEL}")
    return repo


def branches(repo: Repo, ours: dict[str, int], theirs: dict[str, int]) -> None:
    repo.git("switch", "-q", "-c", "side")
    write(repo, **theirs)
    commit(repo, "side")
    repo.git("switch", "-q", "main")
    write(repo, **ours)
    commit(repo, "main")


def test_groups_are_restored_and_complete(grouped: Repo) -> None:
    wanted = sha256(grouped.path / MODEL)
    session = Session(Repository.discover(grouped.path))
    found = session.manifest(session.head[MODEL].oid)
    assert {line.name for line in found.lines} == set(SHAPES)
    inside = grouped.git("ls-tree", "-r", "--name-only", "HEAD", f".theta/{MODEL}/@lines").split("\n")
    assert len(inside) == len(found.groups) > 2
    assert set(closure.places(found)) >= {f"@lines/{path.split('/')[-2]}" for path in inside}
    (grouped.path / MODEL).unlink()
    grouped.theta("restore", MODEL)
    assert sha256(grouped.path / MODEL) == wanted
    grouped.theta("fsck", "--read-data")
    assert grouped.git("status", "--porcelain") == ""


def test_plain_git_merges_different_groups_and_not_one_group(grouped: Repo) -> None:
    branches(grouped, {"l1_k": 1}, {"l4_q": 2})
    grouped.git("-c", "core.hooksPath=/dev/null", "merge", "-q", "--no-edit", "side")
    merged = read_model(grouped.path / MODEL)
    assert merged["layers.1.k"].tobytes() == random_tensors({"layers.1.k": (4, 3)}, 1)["layers.1.k"].tobytes()
    assert merged["layers.4.q"].tobytes() == random_tensors({"layers.4.q": (4, 3)}, 2)["layers.4.q"].tobytes()
    grouped.fsck()


def test_theta_settles_two_changes_in_one_group(grouped: Repo) -> None:
    branches(grouped, {"l1_k": 1}, {"l1_q": 2})
    assert grouped.try_git("merge-tree", "--write-tree", "main", "side").returncode == 1
    grouped.theta("merge", "side", "--no-edit")
    merged = read_model(grouped.path / MODEL)
    for name, seed in (("layers.1.k", 1), ("layers.1.q", 2)):
        assert merged[name].tobytes() == random_tensors({name: (4, 3)}, seed)[name].tobytes()
    grouped.fsck()


def test_a_partial_clone_fetches_listings(grouped: Repo, tmp_path: object) -> None:
    wanted = sha256(grouped.path / MODEL)
    grouped.git("config", "uploadpack.allowFilter", "true")
    grouped.git("config", "uploadpack.allowAnySHA1InWant", "true")
    clone = grouped.clone(grouped.path.parent / "lazy", "--filter=blob:none")
    clone.theta("restore", MODEL)
    assert sha256(clone.path / MODEL) == wanted


def test_objects_that_are_no_listing_are_refused(grouped: Repo) -> None:
    objects = Objects(Repository.discover(grouped.path))
    arranged = written(GOOD)
    tree = grouped.git("rev-parse", "HEAD^{tree}")
    groups = (replace(arranged.groups[0], tree=tree), *arranged.groups[1:])
    with pytest.raises(CorruptError, match="not one of plain files"):
        listings.read(objects, replace(arranged, groups=groups).data)
