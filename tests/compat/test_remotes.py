"""A table of remotes and commands: a directory, git's daemon, and http with a password and with TLS."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.agreement import assert_agreement, assert_history
from tests.compat.inprocess import committed, started, theta
from tests.compat.story import MODEL, TENSOR, digest
from tests.support import Repo
from tests.support.http_git import served

KINDS = ("file", "daemon", "http", "https")


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.contextmanager
def daemon(root: Path) -> Iterator[str]:
    """Serve the repositories below ``root`` by git's daemon; yield the URL of ``root``."""
    port = free_port()
    words = ["git", "daemon", "--listen=127.0.0.1", f"--port={port}", "--export-all", f"--base-path={root}"]
    child = subprocess.Popen([*words, "--enable=receive-pack", str(root)], start_new_session=True)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield f"git://127.0.0.1:{port}"
    finally:
        os.killpg(child.pid, signal.SIGTERM)
        child.wait()


@contextlib.contextmanager
def secured(root: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve ``root`` over TLS with a certificate of its own that git trusts."""
    file, key = root / "server.pem", root / "key.pem"
    subject = ("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1")
    kind = ("-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    words = ["openssl", "req", *kind, *subject, "-keyout", str(key), "-out", str(file)]
    subprocess.run(words, check=True, capture_output=True)
    patch.setenv("GIT_SSL_CAINFO", str(file))
    both = root / "both.pem"
    both.write_text(key.read_text() + file.read_text())
    with served(root, certificate=both) as (url, _):
        yield url


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return started(tmp_path_factory.mktemp("first") / "repo")


@pytest.fixture(params=KINDS)
def remote(
    request: pytest.FixtureRequest, first: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of a bare copy of ``first`` below ``tmp_path``."""
    up = tmp_path / "up.git"
    first.git("clone", "-q", "--bare", ".", str(up))
    for key in ("uploadpack.allowFilter", "uploadpack.allowAnySHA1InWant", "http.receivepack"):
        Repo(up).git("config", key, "true")
    Repo(up).git("config", "receive.advertisePushOptions", "true")
    with contextlib.ExitStack() as stack:
        if request.param == "file":
            yield up.as_uri()
        elif request.param == "daemon":
            yield f"{stack.enter_context(daemon(tmp_path))}/up.git"
        elif request.param == "http":
            url, _ = stack.enter_context(served(tmp_path, login="ada:secret"))
            yield f"{url.replace('//', '//ada:secret@')}/up.git"
        else:
            yield f"{stack.enter_context(secured(tmp_path, monkeypatch))}/up.git"


def cloned(remote: str, place: Path, *options: str) -> Repo:
    place.mkdir()
    repo = Repo(place)
    theta(repo, "clone", "-q", *options, remote, ".")
    return repo


def test_each_remote_takes_and_gives_what_each_command_sends_and_asks(remote: str, tmp_path: Path) -> None:
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
    with daemon(tmp_path) as url:
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
