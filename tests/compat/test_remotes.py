"""A table of remotes and commands: directory, daemon, http, TLS, proxy, sshd with keys, and a forge."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_history
from tests.compat.inprocess import committed, shift, started, theta
from tests.compat.story import MODEL, TENSOR, digest
from tests.support import Repo, remotes
from tests.support.http_git import served

KINDS = ("file", "daemon", "http", "https", "proxy", "tunnel", "ssh", "forge")
SETTINGS = ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "http.receivepack")
RULES = """
repo up
    RW+ = ada
    RW feature/ = bob
    R = @all
    config uploadpack.allowFilter = true
    config uploadpack.allowAnySHA1InWant = true
    config receive.advertisePushOptions = true
"""

Start = Callable[[contextlib.ExitStack, Path, pytest.MonkeyPatch], str]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return started(tmp_path_factory.mktemp("first") / "repo")


def by_proxy(stack: contextlib.ExitStack, place: Path, patch: pytest.MonkeyPatch) -> str:
    """A host that has no address: what is read and written passes the proxy."""
    url, _ = stack.enter_context(served(place))
    stack.enter_context(remotes.proxied(int(url.rpartition(":")[2]), patch))
    return "http://forge.invalid/up.git"


def by_tunnel(stack: contextlib.ExitStack, place: Path, patch: pytest.MonkeyPatch) -> str:
    url = stack.enter_context(remotes.secured(place, patch))
    stack.enter_context(remotes.proxied(int(url.rpartition(":")[2]), patch))
    return "https://127.0.0.1/up.git"


def by_ssh(_: contextlib.ExitStack, place: Path, patch: pytest.MonkeyPatch) -> str:
    sshd = remotes.Sshd(place / "sshd", place / "home")
    sshd.admit("ada")
    patch.setenv("GIT_SSH_COMMAND", sshd.command("ada"))
    return f"ssh://here{place}/up.git"


def by_forge(_: contextlib.ExitStack, place: Path, patch: pytest.MonkeyPatch) -> str:
    """The repository ``up`` of gitolite, of which ada may do all."""
    home = place / "forge"
    home.mkdir()
    sshd = remotes.Sshd(place / "sshd", home)
    remotes.forge(sshd, home, RULES)
    patch.setenv("GIT_SSH_COMMAND", sshd.command("ada"))
    Repo(place / "up.git").git("push", "-q", "ssh://here/up", "main")
    (place / "up.git").rename(place / "first.git")
    (place / "up.git").symlink_to(home / "repositories/up.git")
    patch.setenv("BOB", sshd.command("bob"))
    return "ssh://here/up"


def with_password(stack: contextlib.ExitStack, place: Path, _: pytest.MonkeyPatch) -> str:
    url, _server = stack.enter_context(served(place, login="ada:secret"))
    return f"{url.replace('//', '//ada:secret@')}/up.git"


STARTS: dict[str, Start] = {
    "file": lambda _, place, __: (place / "up.git").as_uri(),
    "daemon": lambda stack, place, _: f"{stack.enter_context(remotes.daemon(place))}/up.git",
    "http": with_password,
    "https": lambda stack, place, patch: f"{stack.enter_context(remotes.secured(place, patch))}/up.git",
    "proxy": by_proxy,
    "tunnel": by_tunnel,
    "ssh": by_ssh,
    "forge": by_forge,
}


@contextlib.contextmanager
def started_as(kind: str, first: Repo, place: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URL of a bare copy of ``first``, ``up.git`` in ``place``, on a server of this kind."""
    up = place / "up.git"
    first.git("clone", "-q", "--bare", ".", str(up))
    for key in (*SETTINGS, "receive.advertisePushOptions"):
        Repo(up).git("config", key, "true")
    with contextlib.ExitStack() as stack:
        yield STARTS[kind](stack, place, patch)


def cloned(remote: str, place: Path, *options: str) -> Repo:
    place.mkdir()
    repo = Repo(place)
    theta(repo, "clone", "-q", *options, remote, ".")
    return repo


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("file", "http", "forge")])
def test_each_remote_gives_a_lazy_clone_and_takes_a_commit(
    kind: str, first: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_as(kind, first, tmp_path, monkeypatch) as remote:
        one = cloned(remote, tmp_path / "one", "--lazy")
        theta(one, "restore", MODEL)
        assert digest(one) == digest(first)
        committed(one, (TENSOR, 1.0))
        theta(one, "push", "-q")
        assert Repo(tmp_path / "up.git").git("rev-parse", "main") == one.git("rev-parse", "HEAD")


def test_a_remote_takes_and_gives_what_each_command_sends_and_asks(
    first: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_as("http", first, tmp_path, monkeypatch) as remote:
        whole_table(remote, tmp_path)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", KINDS)
def test_each_remote_takes_and_gives_what_each_command_sends_and_asks(
    kind: str, first: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_as(kind, first, tmp_path, monkeypatch) as remote:
        whole_table(remote, tmp_path)
        all_clones(remote, tmp_path)


def whole_table(remote: str, tmp_path: Path) -> None:
    up = Repo(tmp_path / "up.git")
    one = cloned(remote, tmp_path / "one")
    two = cloned(remote, tmp_path / "two", "--lazy", "--branch", "main")
    committed(one, (TENSOR, 1.0))
    one.git("tag", "v1")
    theta(one, "push", "-q", "--atomic", "-o", "ci.skip", "--set-upstream", "origin", "main", "v1")
    theta(two, "pull", "-q", "--ff-only")
    theta(two, "restore", MODEL)
    assert digest(two) == digest(one)
    committed(two, ("head.weight", 1.0))
    committed(one, ("embed.weight", 1.0))
    theta(one, "push", "-q")
    rejected = two.theta("push", code=1)
    assert "rejected" in rejected.stderr and "hint: " in rejected.stderr
    theta(two, "pull", "-q", "--rebase")
    assert_history(two)
    theta(two, "push", "-q")
    committed(one, ("layer.2.weight", 1.0))
    theta(one, "pull", "-q", "--no-rebase", "--no-edit")
    assert_agreement(one)
    old = two.git("rev-parse", "HEAD")
    stale = one.theta("push", "-q", f"--force-with-lease=main:{'1' * 40}", "origin", "main", code=1)
    assert "stale info" in stale.stderr
    theta(one, "push", "-q", f"--force-with-lease=main:{old}", "origin", "main")
    assert up.git("rev-parse", "main") == one.git("rev-parse", "main")
    shallow = cloned(remote, tmp_path / "shallow", "--depth", "1", "--single-branch")
    assert_agreement(shallow, {MODEL: digest(one)})
    theta(two, "fetch", "-q", "--prune", "--tags")
    up.fsck()


def all_clones(remote: str, place: Path) -> None:
    """Clone with the options that leave something out, or take it from elsewhere."""
    full = cloned(remote, place / "full")
    want, number = digest(full), itertools.count()
    for options in (
        ("--depth=1",),
        ("--branch=v1",),
        ("--single-branch", "--branch=main"),
        ("--filter=blob:none",),
        ("--filter=tree:0",),
        ("--reference", str(place / "full")),
        ("--reference", str(place / "full"), "--dissociate"),
        ("--lazy", "--depth=1"),
    ):
        clone = cloned(remote, place / f"clone{next(number)}", *options)
        if "--lazy" in options:
            theta(clone, "restore", MODEL)
        if "--branch=v1" in options:
            clone.git("checkout", "-q", "-b", "main", "origin/main")
        assert_agreement(clone, {MODEL: want})
    outer = Repo.create(place / "outer")
    outer.git("-c", "protocol.file.allow=always", "submodule", "--quiet", "add", remote, "models")
    outer.git("commit", "-qm", "models")
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (("COUNT", "1"), ("KEY_0", "protocol.file.allow"), ("VALUE_0", "always")):
            patch.setenv(f"GIT_CONFIG_{key}", value)
        nested = cloned(outer.path.as_uri(), place / "nested", "--recurse-submodules")
    assert digest(nested, f"models/{MODEL}") == want


def merged_by_the_server(ada: Repo, up: Repo) -> None:
    """Merge without theta and without a worktree, as forges do, and bring that here."""
    tree = up.git("merge-tree", "--write-tree", "main", "feature/x")
    merge = up.git("commit-tree", "-p", "main", "-p", "feature/x", "-m", "Merge request 1", tree)
    up.git("update-ref", "refs/heads/main", merge)
    theta(ada, "pull", "-q", "--ff-only")
    assert (shift(ada, TENSOR), shift(ada, "embed.weight")) == (1.0, 1.0)
    assert_agreement(ada)
    assert_history(ada)


def test_a_forge_that_refuses_says_why_and_what_it_merges_is_whole(
    first: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with started_as("forge", first, tmp_path, monkeypatch) as remote:
        ada, bob = cloned(remote, tmp_path / "ada"), cloned(remote, tmp_path / "bob")
        committed(ada, ("embed.weight", 1.0))
        committed(bob, (TENSOR, 1.0))
        ours = os.environ["GIT_SSH_COMMAND"]
        monkeypatch.setenv("GIT_SSH_COMMAND", os.environ["BOB"])
        refused = bob.theta("push", "origin", "HEAD:main", code=1)
        assert "DENIED by" in refused.stderr and "refs/heads/main" in refused.stderr
        theta(bob, "push", "-q", "origin", "HEAD:feature/x")
        monkeypatch.setenv("GIT_SSH_COMMAND", ours)
        theta(ada, "push", "-q")
        merged_by_the_server(ada, Repo(tmp_path / "up.git"))


class Cut(threading.Thread):
    """A proxy to ``port`` that cuts its connection after ``most`` bytes in one direction."""

    def __init__(self, port: int, most: int, *, sent: bool) -> None:
        super().__init__(daemon=True)
        self._port, self._most, self._sent = port, most, sent
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.was_cut = False

    def run(self) -> None:
        """Pass on connections, as pull makes two."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                back = threading.Thread(target=self._pass, args=(server, client, not self._sent), daemon=True)
                back.start()
                self._pass(client, server, self._sent)
                back.join()
                for one in (client, server):
                    one.close()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        left = self._most
        with contextlib.suppress(OSError):
            while data := source.recv(4096):
                if counted and len(data) >= left:
                    target.sendall(data[:left])
                    self.was_cut = True
                    break
                target.sendall(data)
                left -= len(data)
        for one in (source, target) if self.was_cut else (target,):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR if self.was_cut else socket.SHUT_WR)

    def close(self) -> None:
        """End it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join(5)


def cut_at(first: Repo, tmp_path: Path, points: list[int]) -> None:
    """Push and fetch through connections that are cut after so many bytes, then again without."""
    up = tmp_path / "up.git"
    first.git("clone", "-q", "--bare", ".", str(up))
    one, two = cloned(up.as_uri(), tmp_path / "one"), cloned(up.as_uri(), tmp_path / "two")
    with remotes.daemon(tmp_path) as url:
        port = int(url.rpartition(":")[2])
        for number, most in enumerate(points):
            committed(one, (TENSOR, number + 0.5), ("embed.weight", number + 0.25))
            for repo, words, sent in (
                (one, ("push", "-q"), True),
                (two, ("pull", "-q", "--ff-only"), False),
            ):
                proxy = Cut(port, most, sent=sent)
                proxy.start()
                repo.git("remote", "set-url", "origin", f"git://127.0.0.1:{proxy.port}/up.git")
                before = repo.git("rev-parse", "HEAD"), digest(repo)
                done = repo.theta(*words, code=None)
                proxy.close()
                assert done.returncode != 0 or not proxy.was_cut or sent, done.stderr
                if done.returncode:
                    assert done.stderr, words
                    assert (repo.git("rev-parse", "HEAD"), digest(repo)) == before
                assert "bug in theta" not in done.stderr
                assert repo.git("status", "--porcelain") == ""
                repo.git("remote", "set-url", "origin", f"{url}/up.git")
                theta(repo, *words)
            Repo(up).fsck()
            assert digest(two) == digest(one)
    assert_history(two)


def test_a_connection_that_is_cut_changes_nothing_and_is_repeated(first: Repo, tmp_path: Path) -> None:
    cut_at(first, tmp_path, [40, 3000])


@pytest.mark.campaign
def test_connections_cut_at_twenty_points_each_way(first: Repo, tmp_path: Path) -> None:
    cut_at(first, tmp_path, [10 + 37 * number * number for number in range(20)])
