"""``theta extract-lora --commit``: an adapter is committed, and the commit tells what it is between.

The trailer has ids, and options as on the command line::

    Theta-Extract-Lora: --rank 16 -o lora -- <commit> model.safetensors <commit> model.safetensors
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from theta.errors import NotFoundError, UsageError
from theta.merging.adapters.extraction import LoraAdapter
from theta.porcelain.drive import renewing
from theta.porcelain.lineage import told_commit
from theta.porcelain.merge import dry_run
from theta.porcelain.stage import saved_tree
from theta.porcelain.stage.saved_tree import File
from theta.porcelain.tensors import lora
from theta.porcelain.tensors.lora import AdapterWanted
from theta.porcelain.workspace.session import Session

TRAILER: Final = "Theta-Extract-Lora"
_ENDS: Final = 4


@dataclass(frozen=True)
class Extraction:
    """An adapter between two committed versions.

    Attributes:
        ends: the commits of the base and of the fine-tune.
        paths: the checkpoint in each of them.
        wanted: what the adapter is to be.
        folder: where it is in the repository; "" for its root.
    """

    ends: tuple[str, str]
    paths: tuple[str, str]
    wanted: AdapterWanted
    folder: str

    @property
    def places(self) -> tuple[str, str]:
        """The paths of its weights and of its configuration."""
        prefix = f"{self.folder}/" if self.folder else ""
        return prefix + lora.WEIGHTS, prefix + lora.CONFIG

    def line(self) -> str:
        """Return the trailer."""
        wanted = self.wanted
        words = ["--rank", str(wanted.rank)]
        words += ["--epsilon", repr(wanted.epsilon)] if wanted.epsilon else []
        words += [word for one in wanted.whole or () for word in ("--whole", one)]
        words += ["--base-model", wanted.base_model] if wanted.base_model else []
        words += ["--task-type", wanted.task_type] if wanted.task_type else []
        ends = [word for pair in zip(self.ends, self.paths, strict=True) for word in pair]
        return f"{TRAILER}: {shlex.join([*words, '-o', self.folder, '--', *ends])}"


def pinned(
    session: Session, ends: tuple[str, str], paths: tuple[str, str], wanted: AdapterWanted, out: Path
) -> Extraction:
    """Return the extraction with ids in place of names.

    Raises :class:`NotFoundError` for a revision that is no commit, and :class:`UsageError` if ``out`` is not
    in the repository.
    """
    commits = [session.repo.commit_of(one) for one in ends]
    if None in commits:
        raise NotFoundError(f"no such commit: {ends[commits.index(None)]}")
    top, place = (Path(os.path.realpath(one)) for one in (session.repo.worktree, session.cwd / out))
    if not place.is_relative_to(top):
        raise UsageError(f"{out} is outside of the repository", hint="--commit takes a folder inside of it")
    folder = place.relative_to(top).as_posix()
    first, second = (str(one) for one in commits)
    return Extraction((first, second), paths, wanted, "" if folder == "." else folder)


def commit(session: Session, found: LoraAdapter, asked: Extraction, message: str = "") -> str:
    """Commit the adapter on top of HEAD, with its files in the worktree; return the commit.

    Raises :class:`RefusedError` if files have changes that are not committed.
    """
    renewing.refuse_unclean(session)
    head = session.repo.resolve("HEAD")
    with session.change() as change:
        subject = message or f"Extract a LoRA of rank {asked.wanted.rank}"
        files = _files(found, asked)
        return told_commit.write(session, change, head, files, subject, asked.line(), "extract-lora")


def _files(found: LoraAdapter, asked: Extraction) -> dict[str, File]:
    return dict(zip(asked.places, lora.in_memory(found), strict=True))


def recorded(session: Session, oid: str) -> Extraction | None:
    """Return the extraction in the trailer of commit ``oid``; None when it has none.

    Raises :class:`UsageError` if the trailer is malformed.  Nobody has checked the names in it.
    """
    return told_commit.recorded(session, oid, TRAILER, partial(_parsed, session))


def _parsed(session: Session, line: str) -> Extraction:
    words = shlex.split(line)
    at = words.index("--")
    first, before, second, after = words[at + 1 : at + 1 + _ENDS]
    given: dict[str, list[str]] = {}
    for key, value in zip(words[:at:2], words[1:at:2], strict=True):
        given.setdefault(key, []).append(value)
    if len(words) != at + 1 + _ENDS or not all(map(session.repo.format.is_id, (first, second))):
        raise ValueError(words)
    one = {key: values[-1] for key, values in given.items()}
    wanted = AdapterWanted(
        int(one["--rank"]),
        float(one.get("--epsilon", "0")),
        given.get("--whole"),
        one.get("--base-model", ""),
        one.get("--task-type", ""),
    )
    return Extraction((first, second), (before, after), wanted, one["-o"])


def again(session: Session, oid: str) -> bool | None:
    """Extract the adapter of commit ``oid`` again and compare the trees; None when it extracted none."""
    asked = recorded(session, oid)
    if asked is None:
        return None
    parents = session.repo.commit(oid).parents
    if not parents:
        raise UsageError(f"{oid[:12]} has no parent, and an adapter is committed on top of one")
    found, _ = lora.adapter(session, asked.ends, asked.paths, asked.wanted)
    with dry_run.rehearsal(session) as apart, apart.objects.writing() as pack:
        tree = saved_tree.write(apart, pack, parents[0], _files(found, asked)).tree
    return tree == session.repo.tree_of(oid).id
