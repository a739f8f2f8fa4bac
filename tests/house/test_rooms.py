"""Imports between rooms: those that the table allows, and those that it does not."""

import pytest

from tests.house.rooms import (
    Room,
    arrows_between_rooms,
    rooms_out_of_order,
    unfurnished,
)
from tests.house.source import PRODUCT, snippet, sources


def test_rooms_import_what_the_table_allows() -> None:
    assert [finding for source in sources(*PRODUCT) for finding in arrows_between_rooms(source)] == []


def test_every_arrow_of_the_table_points_downwards() -> None:
    assert rooms_out_of_order() == []


def test_every_module_of_porcelain_stands_in_a_room() -> None:
    assert [finding for source in sources(*PRODUCT) for finding in unfurnished(source)] == []
    assert len(unfurnished(snippet("", "theta.porcelain.helpers"))) == 1
    assert unfurnished(snippet("", "theta.porcelain.look.helpers")) == []


def test_a_table_out_of_order_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    upside_down = (Room(("theta.store.read",), ("theta.store.odb",)), Room(("theta.store.odb",)))
    monkeypatch.setattr("tests.house.rooms.ROOMS", upside_down)
    assert len(rooms_out_of_order()) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("theta.porcelain.workspace.example", "from theta.porcelain.merge import joining"),
        ("theta.porcelain.workspace.example", "def f():\n    from theta.porcelain.stage.adding import add"),
        ("theta.porcelain.merge.example", "from theta.porcelain.look.overview import f"),
        ("theta.porcelain.look.example", "from theta.porcelain.stage import adding"),
        ("theta.porcelain.tensors.example", "from theta.porcelain.merge import joining"),
        ("theta.porcelain.drive.example", "import theta.porcelain.merge"),
        ("theta.porcelain.stage.example", "from theta.porcelain.plain_git import hooks"),
        ("theta.porcelain.setup.example", "from theta.porcelain.workspace.session import Session"),
        ("theta.porcelain.plain_git.example", "from theta.porcelain.tensors import catting"),
        ("theta.store.odb.example", "import theta.store.format.manifest"),
        (
            "theta.store.odb.example",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from theta.store import held_packs",
        ),
        ("theta.store.format.example", "from theta.store.read import layers"),
        ("theta.store.read.example", "from theta.store.write.layer_plan import plan"),
        ("theta.store.files.example", "from theta.store import changes"),
        ("theta.merging.strategies.example", "from theta.merging import engine"),
        ("theta.merging.states", "from theta.merging.strategies import Policy"),
        ("theta.formats.layout", "from theta.formats import gguf"),
        ("theta.formats.archives.example", "from theta.formats.torch import torch_zip"),
        ("theta.formats.pickle.example", "from theta.formats.archives import zipped"),
    ],
)
def test_an_arrow_between_rooms_that_is_not_allowed_is_seen(module: str, text: str) -> None:
    assert len(arrows_between_rooms(snippet(text, module))) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("theta.porcelain.stage.example", "from theta.porcelain.look import version_changes"),
        ("theta.porcelain.look.example", "from theta.porcelain.look import diffing"),
        ("theta.porcelain.merge.example", "from theta.porcelain.workspace.session import Session"),
        ("theta.store.changes", "from theta.store.files.file_scan import Scan"),
        ("theta.merging.strategies.example", "from theta.merging.states import Conflict"),
        ("theta.formats.torch.example", "from theta.formats.layout import Layout"),
        ("theta.cli.example", "from theta.porcelain.plain_git import hooks\nfrom theta import errors"),
    ],
)
def test_an_arrow_between_rooms_that_is_allowed_is_free(module: str, text: str) -> None:
    assert arrows_between_rooms(snippet(text, module)) == []
