"""Format plug-ins: found through real entry points, checked, and left out when they are broken."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import Repo
from theta.formats import Layout, Tensor, plugins, scan_or_opaque
from theta.formats.layout import BytesSource
from theta.porcelain.stage import staging
from theta.porcelain.workspace.session import Session

EXAMPLE = Path(__file__).parents[1] / "plugins" / "format_example"

Install = Callable[[str, str], None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)
    plugins.load.cache_clear()
    yield folder
    plugins.load.cache_clear()
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(folder) in str(sys.modules[name].__file__):
            del sys.modules[name]


def install(site: Path, module: str, code: str, points: dict[str, str]) -> None:
    """Write what ``pip install`` writes: a module, and the metadata of its distribution."""
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[theta.formats]\n{lines}")
    importlib.invalidate_caches()
    plugins.load.cache_clear()


def install_example(site: Path) -> Any:
    """Install the example as its own pyproject.toml says; return its module."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    points = project["project"]["entry-points"]["theta.formats"]
    (module,) = project["tool"]["setuptools"]["py-modules"]
    install(site, module, (EXAMPLE / f"{module}.py").read_text(), points)
    return importlib.import_module(module)


def test_the_example_is_found_and_read(site: Path) -> None:
    data = install_example(site).dump({"a": (2, 3, bytes(24)), "é": (1, 1, b"1234")})
    layout, reason = scan_or_opaque(BytesSource(data))
    assert (layout.format, reason) == ("tbox", "")
    assert [(t.name, t.shape) for t in layout.tensors] == [("a", (2, 3)), ("é", (1, 1))]
    assert len(layout.derived) == 2
    assert scan_or_opaque(BytesSource(data[:-1]))[1] == "tbox: cut off"


def test_its_files_merge_and_are_restored_without_it(site: Path, repo: Repo) -> None:
    """The table in the commit is all that restoring needs; theta's own processes lack the plug-in here."""
    dump = install_example(site).dump
    repo.theta("track", "*.tbox")

    def commit(a: bytes, b: bytes, message: str) -> None:
        repo.write("m.tbox", dump({"a": (4, 4, a * 16), "b": (4, 4, b * 16)}))
        session = Session.here(repo.path)
        with session.change():
            (added,) = staging.add_files(session, ["m.tbox"])
        assert added.manifest.format == "tbox" and not added.note
        repo.theta("commit", "-m", message)

    commit(b"aaaa", b"bbbb", "base")
    commit(b"AAAA", b"bbbb", "ours")
    repo.git("switch", "-q", "-c", "other", "HEAD~1")
    commit(b"aaaa", b"BBBB", "theirs")
    repo.git("merge", "-q", "-m", "both", "-")
    expected = dump({"a": (4, 4, b"AAAA" * 16), "b": (4, 4, b"BBBB" * 16)})
    assert (repo.path / "m.tbox").read_bytes() == expected


BROKEN = {
    "import": ("import nothing_of_this_name\n", "nothing_of_this_name"),
    "syntax": ("def (\n", "SyntaxError"),
    "exit": ("raise SystemExit('bye')\n", "bye"),
    "no reader": ("other = 1\n", "reader"),
    "no name": ("class reader: detect = scan = print\n", "NAME"),
    "bad name": ("class reader: NAME = 'Bad Name'; detect = scan = print\n", "Bad Name"),
    "taken": ("class reader: NAME = 'gguf'; detect = scan = print\n", "gguf"),
    "opaque": ("class reader: NAME = 'opaque'; detect = scan = print\n", "opaque"),
    "no scan": ("class reader: NAME = 'x'; detect = print; scan = 1\n", "cannot be called"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plug_in_is_told_in_one_line_and_left_out(site: Path, kind: str) -> None:
    code, word = BROKEN[kind]
    install(site, "broken_example", code, {"broken": "broken_example:reader"})
    example = install_example(site)
    layout, reason = scan_or_opaque(BytesSource(b"no format"))
    assert layout.format == "opaque"
    assert "\n" not in reason and "'broken'" in reason and word in reason
    layout, reason = scan_or_opaque(BytesSource(example.dump({"a": (1, 1, b"1234")})))
    assert (layout.format, reason) == ("tbox", "")


LYING: dict[str, Callable[[int], object]] = {
    "no layout": lambda size: None,
    "another format": lambda size: Layout("gguf", size, ()),
    "another size": lambda size: Layout("lying", size + 1, ()),
    "beyond the end": lambda size: Layout("lying", size, (Tensor("a", "u8", (size,), 1, size),)),
    "an overlap": lambda size: Layout(
        "lying", size, (Tensor("a", "u8", (4,), 0, 4), Tensor("b", "u8", (4,), 2, 4))
    ),
    "no such dtype": lambda size: Layout("lying", size, (Tensor("a", "f7", (4,), 0, 4),)),
    "not tensors": lambda size: Layout("lying", size, ("abc",)),  # type: ignore[arg-type]
    "an exception": lambda size: 1 // (size - size),
}


@pytest.mark.parametrize("kind", LYING)
def test_what_a_plug_in_says_is_checked(site: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "class reader:\n    NAME = 'lying'\n    answer = None\n    def detect(source): return True\n"
    code += "    def scan(source): return reader.answer(source.size)\n"
    install(site, "lying_example", code, {"lying": "lying_example:reader"})
    monkeypatch.setattr(importlib.import_module("lying_example").reader, "answer", LYING[kind])
    layout, reason = scan_or_opaque(BytesSource(b"twelve bytes"))
    assert layout.format == "opaque" and reason and "\n" not in reason
