"""A git server over http on the loopback interface: git's own ``http-backend`` behind Python's server."""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

_BACKEND: Final = ("git", "http-backend")


class Server(ThreadingHTTPServer):
    """Serves the repositories below ``root``; while it is ``down``, every request fails.

    ``requests`` counts the posts, ``received`` and ``sent`` the bytes of all bodies.  ``login`` is the
    user and password (``USER:PASSWORD``) that every request needs.
    """

    daemon_threads = True
    root: Path
    down: bool = False
    requests: int = 0
    received: int = 0
    sent: int = 0
    login: str = ""


class _Handler(BaseHTTPRequestHandler):
    """Passes requests to ``git http-backend`` as CGI (RFC 3875)."""

    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Print nothing."""

    def do_GET(self) -> None:
        """Serve a GET."""
        self._run(b"")

    def do_POST(self) -> None:
        """Serve a POST."""
        self._run(body_of(self))

    def _run(self, body: bytes) -> None:
        if self.server.down:
            self.send_error(503)
            return
        wanted = f"Basic {b64encode(self.server.login.encode()).decode()}"
        if self.server.login and self.headers.get("Authorization") != wanted:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.server.requests += self.command == "POST"
        self.server.received += len(body)
        path, _, query = self.path.partition("?")
        variables = {
            "GIT_PROJECT_ROOT": str(self.server.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_USER": self.server.login.partition(":")[0],
        }
        done = subprocess.run(
            _BACKEND, input=body, env=os.environ | variables, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        rows = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        self.send_response(int(rows.pop("Status", "200").split()[0]))
        for name, value in rows.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.server.sent += len(content)
        self.wfile.write(content)


def body_of(request: BaseHTTPRequestHandler) -> bytes:
    """Return the body of a request."""
    if request.headers.get("Transfer-Encoding", "") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    parts = []
    while size := int(request.rfile.readline().split(b";")[0], 16):
        parts.append(request.rfile.read(size))
        request.rfile.readline()
    request.rfile.readline()
    return b"".join(parts)


@contextlib.contextmanager
def served(root: Path, login: str = "", certificate: Path | None = None) -> Iterator[tuple[str, Server]]:
    """Serve the repositories below ``root`` during the block; yield the URL of ``root``, and the server.

    ``certificate`` is a file with a key and a certificate, by which the server speaks TLS.
    """
    server = Server(("127.0.0.1", 0), _Handler)
    server.root, server.login = root, login
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http{'s' * bool(certificate)}://127.0.0.1:{server.server_port}", server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
