"""Servers of git on the loopback interface: its daemon, TLS, a proxy, sshd with keys, and gitolite."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from tests.support.http_git import body_of, served

SSHD: Final = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
_CARRIED: Final = ("PATH", "PYTHONPATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "LC_ALL", "TMPDIR")


def free_port() -> int:
    """Return a port that nobody uses."""
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
    kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    words = ["openssl", "req", *kind, *subject, "-keyout", str(key), "-out", str(file)]
    subprocess.run(words, check=True, capture_output=True)
    patch.setenv("GIT_SSL_CAINFO", str(file))
    both = root / "both.pem"
    both.write_text(key.read_text() + file.read_text())
    with served(root, certificate=both) as (url, _):
        yield url


class _Proxy(BaseHTTPRequestHandler):
    """Passes requests on to the server that the proxy is for, whatever host they name."""

    server: Proxy

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Print nothing."""

    def do_GET(self) -> None:
        """Pass on a request for an absolute URL."""
        self.server.passed.append(self.path)
        address = urlsplit(self.path)
        to = http.client.HTTPConnection("127.0.0.1", self.server.port)
        own = ("proxy-connection", "connection", "transfer-encoding", "content-length", "host")
        kept = {name: value for name, value in self.headers.items() if name.lower() not in own}
        to.request(self.command, f"{address.path}?{address.query}", body_of(self) or None, kept)
        answer = to.getresponse()
        data = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "server", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        """Pass on a request with a body."""
        self.do_GET()

    def do_CONNECT(self) -> None:
        """Connect the client with the server, byte by byte."""
        self.server.passed.append(self.path)
        with socket.create_connection(("127.0.0.1", self.server.port)) as to:
            self.send_response(200)
            self.end_headers()
            back = threading.Thread(target=_pump, args=(to, self.connection), daemon=True)
            back.start()
            _pump(self.connection, to)
            back.join()
        self.close_connection = True


class Proxy(ThreadingHTTPServer):
    """A proxy to the server at ``port``; ``passed`` are the URLs and hosts that it was asked for."""

    daemon_threads = True
    port: int = 0
    passed: list[str]


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxied(port: int, patch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Let git reach all http hosts through a proxy, which connects with the server at ``port``."""
    server = Proxy(("127.0.0.1", 0), _Proxy)
    server.port, server.passed = port, []
    for name in ("http_proxy", "https_proxy"):
        patch.setenv(name, f"http://127.0.0.1:{server.server_port}")
    patch.setenv("no_proxy", "")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Sshd:
    """An sshd of this user with a key of its own, started by each ssh; users log in by keys.

    ``home`` is the home directory of those who log in, with ``.ssh/authorized_keys``.
    """

    def __init__(self, place: Path, home: Path) -> None:
        assert SSHD is not None, "sshd is missing: apt install openssh-server"
        self._place, self._home = place, home
        place.mkdir(mode=0o700)
        (home / ".ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.key("host")
        if os.getuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as the system does when it starts sshd
        carried = " ".join(f'"{name}={os.environ[name]}"' for name in _CARRIED if name in os.environ)
        (place / "sshd_config").write_text(
            f"HostKey {place}/host\nAuthorizedKeysFile {home}/.ssh/authorized_keys\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            f"SetEnv HOME={home} {carried}\n"
        )
        host = (place / "host.pub").read_text()
        (place / "known_hosts").write_text(f"here {host}")

    def key(self, name: str) -> str:
        """Make a pair of keys; return the public one."""
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self._place / name)]
        subprocess.run(words, check=True)
        return (self._place / f"{name}.pub").read_text()

    def admit(self, name: str) -> None:
        """Let the owner of the key ``name`` log in."""
        with (self._home / ".ssh/authorized_keys").open("a") as file:
            file.write(self.key(name))

    def command(self, name: str) -> str:
        """Return the ssh of the owner of the key ``name``, for ``GIT_SSH_COMMAND``."""
        place, server = self._place, shlex.quote(f"{SSHD} -i -f {self._place}/sshd_config")
        options = (
            f"ProxyCommand={shlex.split(server)[0]}",
            f"IdentityFile={place / name}",
            "IdentitiesOnly=yes",
            f"UserKnownHostsFile={place}/known_hosts",
            "BatchMode=yes",
        )
        return shlex.join(["ssh", "-F", "none", *(word for option in options for word in ("-o", option))])


def gitolite(home: Path, *words: str) -> None:
    """Run ``gitolite WORDS`` as the forge whose home is ``home``."""
    environment = {**os.environ, "HOME": str(home)}
    subprocess.run(["gitolite", *words], env=environment, cwd=home, check=True, capture_output=True)


def forge(sshd: Sshd, home: Path, rules: str) -> None:
    """Set up gitolite in ``home`` with users ada and bob, and ``rules`` for its repositories."""
    for name in ("ada", "bob"):
        (home / f"{name}.pub").write_text(sshd.key(name))
    gitolite(home, "setup", "-pk", str(home / "ada.pub"))
    shutil.copy(home / "bob.pub", home / ".gitolite/keydir")
    settings = home / ".gitolite.rc"
    text, count = re.subn(r"(GIT_CONFIG_KEYS\s*=>\s*)''", r"\1'.*'", settings.read_text())
    assert count == 1
    settings.write_text(text)
    (home / ".gitolite/conf/gitolite.conf").write_text(rules)
    gitolite(home, "compile")
    gitolite(home, "trigger", "POST_COMPILE")
