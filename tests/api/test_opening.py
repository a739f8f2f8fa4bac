"""``theta.open`` of URLs and of partial clones: what is fetched, when, and in how many requests."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

import theta
from tests.api.conftest import BIG, MODEL, Story, same
from theta.api import places
from theta.errors import MissingObjectsError, NotHereYetError, ThetaError, UsageError


class Fetches:
    """Counts the fetches since it was last asked."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __call__(self) -> int:
        text = self.trace.read_text() if self.trace.exists() else ""
        self.trace.write_text("")
        events = map(json.loads, text.splitlines())
        return sum(event["event"] == "cmd_name" and event["name"] == "fetch" for event in events)


@pytest.fixture
def fetches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetches:
    monkeypatch.setenv("GIT_TRACE2_EVENT", str(tmp_path / "trace"))
    return Fetches(tmp_path / "trace")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory in which temporary directories are made."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    return place


def test_a_url_is_cloned_without_files(story: Story, temporary: Path, fetches: Fetches) -> None:
    with theta.open(story.repo.path.as_uri()) as repo:
        assert [place.name for place in temporary.iterdir()] == [repo.path.parent.name]
        fetches()
        checkpoint = repo[f"main~1:{MODEL}"]
        assert 0 < fetches() <= 2  # the manifest, the skeleton
        assert set(checkpoint) == set(story.first)
        assert checkpoint[BIG].shape == (3000, 1500)
        assert fetches() == 0
        assert same(checkpoint[BIG][10:20].numpy(), story.first[BIG][10:20])
        assert fetches() == 1
        checkpoint[BIG].numpy()
        assert fetches() == 0
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("kind", ["blob:none", "tree:0"])
def test_many_tensors_are_fetched_at_once(story: Story, tmp_path: Path, fetches: Fetches, kind: str) -> None:
    place = tmp_path / "clone"
    story.repo.git("clone", "-q", "--no-checkout", f"--filter={kind}", story.repo.path.as_uri(), str(place))
    with theta.open(place) as repo:
        checkpoint = repo[f"main:{MODEL}"]
        fetches()
        checkpoint.fetch("*e*")
        assert 0 < fetches() <= (1 if kind == "blob:none" else 2)
        assert all(same(array, story.second[name]) for name, array in checkpoint.load("*e*").items())
        assert fetches() == 0
        loaded = checkpoint.load()
        assert 0 < fetches() <= (1 if kind == "blob:none" else 2)
        assert all(same(array, story.second[name]) for name, array in loaded.items())
        assert set(loaded) == set(story.second)


def test_looking_at_a_url(story: Story, temporary: Path) -> None:
    with theta.open(story.repo.path.as_uri()) as repo:
        assert [item.subject for item in repo.log(tensor="layers.0.weight")] == ["second", "first"]
        (item,) = repo.diff("main~1", "main")
        numbers = repo.numbers(item, item.changes.tensors[0])
        assert numbers is not None and numbers.largest > 0
        assert repo.checkpoints("main") == [MODEL]


def test_the_clone_goes_with_its_repository(story: Story, temporary: Path) -> None:
    repo = theta.open(story.repo.path.as_uri())
    tensor = repo[f"main:{MODEL}"]["three"]
    assert list(temporary.iterdir()) != []
    repo.close()
    with pytest.raises(UsageError, match="closed"):
        tensor.numpy()
    assert list(temporary.iterdir()) == []
    repo = theta.open(story.repo.path.as_uri())
    del repo
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_checkpoint_keeps_the_clone_that_it_reads(story: Story, temporary: Path) -> None:
    """``theta.open(url)[name]`` drops the repository at once."""
    checkpoint = theta.open(story.repo.path.as_uri())[f"main:{MODEL}"]
    gc.collect()
    assert same(checkpoint[BIG][5].numpy(), story.second[BIG][5])
    del checkpoint
    gc.collect()
    assert list(temporary.iterdir()) == []


def test_a_remote_that_is_gone(story: Story, tmp_path: Path) -> None:
    story.repo.copy(tmp_path / "origin")
    place = tmp_path / "clone"
    url = (tmp_path / "origin").as_uri()
    story.repo.git("clone", "-q", "--bare", "--filter=blob:none", url, str(place))
    with theta.open(place) as repo:
        checkpoint = repo[f"main:{MODEL}"]
        (tmp_path / "origin").rename(tmp_path / "elsewhere")
        for ask in (checkpoint["three"].numpy, checkpoint.fetch):
            with pytest.raises(NotHereYetError) as raised:
                ask()
            assert isinstance(raised.value, MissingObjectsError)


def test_a_url_that_is_none(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(ThetaError, match="does not appear to be a git repository"):
        theta.open((tmp_path / "gone").as_uri())
    with pytest.raises(ThetaError, match="transport"):
        theta.open("ext::sh -c touch% x")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://example.com/m.git", True),
        ("git@example.com:m.git", True),
        ("host:m", True),
        ("file:///m", True),
        ("ext::program", True),
        (".", False),
        ("/m/a:b", False),
        ("models", False),
        ("./a:b", False),
    ],
)
def test_what_is_a_url(text: str, expected: bool) -> None:
    assert places.is_url(text) is expected


def test_a_folder_is_no_url_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host:m").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not places.is_url("host:m")


def test_a_url_where_git_is_told_of_another_repository(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a hook: each git would read that one in place of the clone."""
    monkeypatch.setenv("GIT_DIR", str(story.repo.path / ".git"))
    with pytest.raises(UsageError, match="GIT_DIR"):
        theta.open(story.repo.path.as_uri())
