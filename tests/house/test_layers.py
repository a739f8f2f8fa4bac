"""Imports point downwards only: cli, porcelain, merging, store, codecs and formats, kernels."""

import pytest

from tests.house.layers import circles, reached_from, unplaced, upward_imports
from tests.house.source import PRODUCT, Source, snippet, sources


def test_imports_point_downwards() -> None:
    assert [finding for source in sources(*PRODUCT) for finding in upward_imports(source)] == []


def test_every_module_has_a_layer() -> None:
    assert [finding for source in sources(*PRODUCT) for finding in unplaced(source)] == []


def test_the_modules_were_found() -> None:
    assert {"theta", "theta._fs", "theta.errors", "theta_native"} <= {
        source.module for source in sources(*PRODUCT)
    }


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("theta.store.pack", "import theta.porcelain.add"),
        ("theta.store.pack", "from theta.merging import states"),
        ("theta.store.pack", "from ..merging import states"),
        ("theta.store.pack", "from .. import merging"),
        ("theta.store.pack", "def f():\n    from theta import porcelain"),
        ("theta.store.pack", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import theta.cli"),
        ("theta.store.pack", "import importlib\nimportlib.import_module('theta.cli.add')"),
        ("theta.store.pack", "from theta.lazy import Module\nadd = Module('theta.cli.add')"),
        ("theta.store.pack", "import theta"),
        ("theta.git.run", "import theta.store"),
        ("theta.codecs.dense", "import theta.formats"),
        ("theta.formats.safetensors", "import theta.codecs.dense"),
        ("theta.errors", "import theta_native"),
        ("theta._fs", "from theta.git import run"),
        ("theta_native.byte_planes", "import theta.codecs"),
        ("theta.porcelain.add", "from theta.cli import main"),
        ("theta", "from theta import cli"),
        ("theta.cli.add", "import theta.__main__"),
    ],
)
def test_an_upward_arrow_is_seen(module: str, text: str) -> None:
    assert len(upward_imports(snippet(text, module))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("theta.__main__", "from theta.cli import main"),
        ("theta.cli.add", "import theta\nimport theta.porcelain.add\nfrom . import table"),
        (
            "theta.store.pack",
            "from theta.git import run\nfrom theta.codecs import dense",
        ),
        ("theta.store.pack", "from theta import _fs, errors, dtypes, _version\nfrom . import trees"),
        ("theta._fs", "from theta.errors import DiskError"),
        ("theta.codecs.dense", "from theta_native import planes"),
        ("theta", "from theta.porcelain import add"),
    ],
)
def test_a_downward_arrow_is_free(module: str, text: str) -> None:
    assert upward_imports(snippet(text, module)) == []


def test_a_relative_import_of_a_package_starts_at_the_package() -> None:
    assert upward_imports(Source("theta.store", "from . import pack", is_package=True)) == []
    assert len(upward_imports(Source("theta.store", "from .. import merging", is_package=True))) == 1


def test_a_module_without_a_layer_is_seen() -> None:
    assert len(unplaced(snippet("", "theta.helpers"))) == 1
    assert unplaced(snippet("", "theta.store.helpers")) == []


def test_no_modules_import_each_other() -> None:
    assert circles(sources(*PRODUCT)) == []


def test_a_circle_is_seen() -> None:
    one = snippet("def f():\n    from theta.store import two", "theta.store.one")
    two = snippet(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from theta.store.three import T",
        "theta.store.two",
    )
    three = snippet("from theta.store.one import x", "theta.store.three")
    above = snippet("from theta.store import one", "theta.store.above")
    assert circles([one, two, three, above]) == [("theta.store.one", "theta.store.three", "theta.store.two")]
    assert circles([one, two, above]) == []


def test_what_reads_does_not_know_what_plans_a_write() -> None:
    known = sources(*PRODUCT)
    readers = [source.module for source in known if source.module.startswith("theta.store.read.")]
    assert "theta.store.read.stored_tensor" in readers
    reached = {module for reader in readers for module in reached_from(reader, known)}
    assert "theta.store.format.tensor_tree" in reached
    assert not {module for module in reached if module.startswith("theta.store.write.")}
