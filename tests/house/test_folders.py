"""Few modules in each folder, and no file name in two of them."""

from tests.house.folders import ALIKE, MOST, crowded, doubled
from tests.house.source import PRODUCT, sources

MODULES = [source.module for source in sources(*PRODUCT) if not source.is_package]


def test_no_folder_is_crowded() -> None:
    assert crowded(MODULES) == []


def test_no_file_name_stands_in_two_folders() -> None:
    assert doubled(MODULES) == []


def test_the_folders_of_many_alike_need_it() -> None:
    assert [name for name in ALIKE if sum(m.rpartition(".")[0] == name for m in MODULES) <= MOST] == []


def test_a_crowded_folder_is_seen() -> None:
    full = [f"theta.store.m{number}" for number in range(MOST)]
    assert crowded([*full, "theta.store.read.more"]) == []
    assert crowded([*full, "theta.store.more"]) == [f"theta.store holds {MOST + 1} modules, above {MOST}"]
    assert crowded([f"theta.cli.m{number}" for number in range(MOST + 9)]) == []


def test_a_name_in_two_folders_is_seen() -> None:
    assert doubled(["theta.git.run", "theta.merging.run"]) == ["run: theta.git.run, theta.merging.run"]
    assert doubled(["theta.git.run", "theta.merging.runs"]) == []
