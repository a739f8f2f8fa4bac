"""Large pushes: below the limit of a host, in parts, and never what the host cannot hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.inprocess import theta
from tests.compat.story import MODEL, digest, edit, own_hook_of
from tests.support import Repo, make_model, random_tensors
from tests.support.http_git import Server, served
from theta.errors import ExitCode
from theta.porcelain.share import hosts, parts, pushing
from theta.porcelain.workspace.session import Session

SHAPES = {f"layer.{number}.weight": (128, 128) for number in range(16)}
TENSOR = 128 * 128 * 4
LIMIT = 5 * TENSOR


def trained(place: Path, form: str = "sha1") -> Repo:
    """Make a repository with three versions of a model of 1 MB: all new, all changed, one tensor changed."""
    place.mkdir()
    repo = Repo(place)
    theta(repo, "init", "-q", f"--object-format={form}")
    theta(repo, "track", "*.safetensors")
    for seed in range(2):
        make_model(repo.path / MODEL, random_tensors(SHAPES, seed))
        theta(repo, "add", ".")
        theta(repo, "commit", "-q", "-m", f"version {seed}")
    edit(repo, "layer.3.weight", 1e-3)
    theta(repo, "commit", "-qam", "one tensor")
    repo.git("config", "theta.pushLimit", str(LIMIT))
    return repo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return trained(tmp_path_factory.mktemp("parts") / "repo")


@pytest.fixture
def repo(made: Repo, tmp_path: Path) -> Repo:
    return made.copy(tmp_path / "repo")


def host_of(repo: Repo, place: Path, *options: str) -> Repo:
    """A remote that takes packs below the limit only, and keeps each as it came."""
    repo.git("init", "-q", "--bare", *options, str(place))
    host = Repo(place)
    host.git("config", "receive.maxInputSize", str(LIMIT))
    host.git("config", "receive.unpackLimit", "1")
    repo.git("remote", "add", "host", place.as_uri())
    return host


@pytest.fixture
def host(repo: Repo, tmp_path: Path) -> Repo:
    return host_of(repo, tmp_path / "host.git")


def refs(host: Repo) -> list[str]:
    return host.git("for-each-ref", "--format=%(refname)").split()


def packs(host: Repo) -> list[int]:
    return [place.stat().st_size for place in (host.path / "objects/pack").glob("*.pack")]


@pytest.mark.parametrize("form", ["sha1", "sha256"])
def test_a_push_that_is_too_large_for_the_host_goes_in_parts(
    request: pytest.FixtureRequest, tmp_path: Path, form: str
) -> None:
    repo = request.getfixturevalue("repo") if form == "sha1" else trained(tmp_path / "other", form)
    host = host_of(repo, tmp_path / "of.git", f"--object-format={form}")
    assert "maximum allowed size" in repo.try_git("push", "-q", "host", "main").stderr
    said = theta(repo, "push", "-q", "--tags", "host", "main").out
    assert said == ""
    assert refs(host) == ["refs/heads/main"]
    assert host.git("rev-parse", "main") == repo.git("rev-parse", "main")
    host.fsck()
    assert max(packs(host)) < LIMIT
    # nothing was sent twice
    assert sum(packs(host)) < 1.02 * Repo(repo.path).stored_bytes()
    theta(repo, "clone", "-q", host.path.as_uri(), str(tmp_path / "clone"))
    assert digest(Repo(tmp_path / "clone")) == digest(repo)
    assert "no problems" in theta(Repo(tmp_path / "clone"), "fsck", "--read-data").out
    theta(repo, "push", "-q", "host", "main")


def test_a_push_that_was_cut_goes_on_where_it_was(repo: Repo, host: Repo) -> None:
    hook = host.write("hooks/pre-receive", "#!/bin/sh\necho x >> n\ntest $(wc -l < n) -ne 4\n")
    hook.chmod(0o755)
    theta(repo, "push", "-q", "host", "main", code=1)
    assert [ref for ref in refs(host) if not ref.startswith(parts.REFS)] == []
    before = packs(host)
    assert len(before) == 3
    edit(repo, "layer.5.weight")
    theta(repo, "commit", "-qam", "meanwhile")
    said = theta(repo, "push", "--dry-run", "host", "main").out
    assert "files of it are there already" in said
    theta(repo, "push", "-q", "host", "main")
    assert refs(host) == ["refs/heads/main"]
    host.fsck()
    assert sum(packs(host)) < 1.02 * repo.stored_bytes()


def test_a_rehearsal_tells_bytes_and_parts_and_sends_nothing(repo: Repo, host: Repo) -> None:
    said = theta(repo, "push", "-n", "host", "main").out
    assert said.startswith("1.") and "MB to send to host, in 7 parts of at most 328 kB" in said, said
    assert (refs(host), packs(host)) == ([], [])


def test_what_the_host_cannot_hold_is_refused_before_anything_is_sent(repo: Repo, host: Repo) -> None:
    repo.git("config", "theta.hostLimit", str(20 * TENSOR))
    for option in ((), ("--dry-run",)):
        done = theta(repo, "push", "-q", *option, "host", "main", code=int(ExitCode.FAILED))
        assert "holds at most 1.3 MB in a repository" in done.err and "nothing was sent" in done.err
    assert (refs(host), packs(host)) == ([], [])
    with pytest.raises(pushing.HostLimitError):
        session = Session.here(repo.path)
        pushing.push(session, pushing.PushRequest.of(repo.path, "host", "main"))


def test_what_the_remote_would_reject_sends_no_parts(repo: Repo, host: Repo) -> None:
    theta(repo, "push", "-q", "host", "main~2:refs/heads/main")
    before = packs(host)
    repo.git("checkout", "-q", "--orphan", "other", "main")
    repo.git("commit", "-q", "-m", "unrelated")
    done = repo.theta("push", "host", "other:main", code=1)
    assert "rejected" in done.stderr and "hint: " in done.stderr
    repo.write(own_hook_of(repo, "pre-push"), "#!/bin/sh\nexit 1\n").chmod(0o755)
    repo.theta("push", "-q", "host", "main", code=1)
    assert packs(host) == before


def test_a_push_by_a_program(repo: Repo, host: Repo) -> None:
    session = Session.here(repo.path)
    told: list[str] = []
    rehearsed = pushing.push(session, pushing.PushRequest.of(repo.path, "host", "main", dry_run=True))
    assert rehearsed.plan is not None and len(rehearsed.plan.groups) == 7
    done = pushing.push(session, pushing.PushRequest.of(repo.path, "host", "main"), tell=told.append)
    assert done.done.code == 0
    assert told[0] == "part 1 of 7"
    assert refs(host) == ["refs/heads/main"]


@pytest.fixture
def web(repo: Repo, tmp_path: Path) -> Iterator[tuple[Repo, Server]]:
    """A lazy clone of a copy of ``repo`` on a web server."""
    origin = tmp_path / "up.git"
    repo.git("clone", "-q", "--bare", ".", str(origin))
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "http.receivepack"):
        Repo(origin).git("config", key, "true")
    with served(tmp_path) as (url, server):
        clone = Repo(tmp_path / "lazy", repo.ticks)
        clone.path.mkdir()
        theta(clone, "clone", "-q", "--lazy", f"{url}/up.git", ".")
        yield clone, server


def test_a_lazy_clone_takes_back_a_commit_without_the_tensors_of_it(web: tuple[Repo, Server]) -> None:
    """Plain git fetches the tensors of the old version, and sends them back to where they came from."""
    clone, server = web
    old = clone.git("commit-tree", "-p", "main", "-m", "as it was", "main~2^{tree}")
    clone.git("reset", "-q", "--soft", old)
    before = server.sent, server.received
    theta(clone, "push", "-q", "origin", "main")
    assert server.sent - before[0] < TENSOR / 4
    assert server.received - before[1] < TENSOR / 4
    up = Repo(clone.path.parent / "up.git")
    up.fsck()
    assert up.git("rev-parse", "main:.theta") == clone.git("rev-parse", "main~3:.theta")


def test_a_second_push_of_a_small_change_is_small(web: tuple[Repo, Server]) -> None:
    """A merged adapter of rank 1 is a fiftieth of the model at most, manifest and trees included."""
    import numpy as np

    from tests.support import mutate

    clone, server = web
    theta(clone, "restore", MODEL)
    rng = np.random.default_rng(5)

    def adapted(old: np.ndarray) -> np.ndarray:
        product = np.outer(rng.standard_normal(old.shape[0]), rng.standard_normal(old.shape[1]))
        return (old + 0.01 * product).astype(old.dtype)

    mutate(clone.path / MODEL, "layer.7.weight", adapted)
    theta(clone, "commit", "-qam", "adapter")
    before = server.received
    theta(clone, "push", "-q", "origin", "main")
    assert server.received - before < len(SHAPES) * TENSOR / 50


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("git@github.com:me/model.git", "GitHub"),
        ("https://user:token@github.com/me/model", "GitHub"),
        ("ssh://git@bitbucket.org:22/me/model", "Bitbucket Cloud"),
        ("https://org@dev.azure.com/org/p/_git/m", "Azure Repos"),
        ("https://org.visualstudio.com/p/_git/m", "Azure Repos"),
        ("https://GitLab.com/me/model", "GitLab.com"),
        ("https://notgithub.com/me/model", None),
        ("/srv/github.com/model", None),
        ("https://example.org/github.com/model", None),
    ],
)
def test_hosts_are_known_by_their_urls(url: str, name: str | None) -> None:
    found = hosts.of_url(url)
    assert (found.name if found else None) == name


def test_no_host_takes_less_than_what_is_sent_where_nothing_is_known() -> None:
    assert min(host.push for host in hosts.HOSTS if host.push) == hosts.DEFAULT
    assert all(host.source.startswith("https://") for host in hosts.HOSTS)
