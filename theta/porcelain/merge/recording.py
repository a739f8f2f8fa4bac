"""The record of how checkpoints were merged, and the trailers that are made from it.

Every command that applies a result records it below ``.git/theta/`` and updates the trailers in the
message of the coming commit.  A checkpoint that was edited by hand after that is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from theta import _fs, _notes
from theta.errors import MALFORMED
from theta.git import in_progress, state_files
from theta.git.in_progress import Operation
from theta.git.repository import STORES
from theta.lazy import Module
from theta.porcelain.workspace.session import Session

if TYPE_CHECKING:
    from theta.merging import deeds, engine, recipes
    from theta.merging.deeds import Deed
    from theta.merging.recipes import Recipe
    from theta.porcelain.merge import trailers
    from theta.porcelain.merge.joining import How, Merged
    from theta.porcelain.merge.trailers import Round
else:
    deeds = Module("theta.merging.deeds")
    engine = Module("theta.merging.engine")
    recipes = Module("theta.merging.recipes")
    trailers = Module("theta.porcelain.merge.trailers")

_PICKS: Final = {b"pick", b"p", b"edit", b"e", b"reword", b"r"}
"""Rebase commands that apply one commit and make one commit."""

_TOLD: Final = re.compile(r"^Theta-Merge:.*(\n|\Z)", re.MULTILINE)
"""A trailer of an earlier round of this message."""
_HIDDEN: Final = re.compile(rf"^\S\t{re.escape(STORES)}/.*\n", re.MULTILINE)
"""A file below ``.theta/`` in git's list of conflicts, which is hidden from the user."""


@dataclass
class MergeRecord:
    """The results of one operation so far.

    Attributes:
        operation: key of the operation.
        done: path -> how it was merged.
        asked: all paths that were merged or in conflict.
        squashed: the commits of a squashed merge, which its commit does not name as parents.
        terms: seed, dtype and the like with which the operation began, as the text of a recipe.
    """

    operation: str
    done: dict[str, Deed] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    squashed: tuple[str, ...] = ()
    terms: str = ""


def terms(session: Session) -> Recipe:
    """Return seed, dtype and the like with which the operation in progress began; no strategies."""
    found = _read(session)
    return recipes.from_text(found.terms) if found is not None else recipes.Recipe()


def note(
    session: Session,
    merged: Merged,
    how: How,
    base: str = "",
    *,
    squashed: Sequence[str] = (),
    now: Operation | None = None,
) -> None:
    """Record the results in ``merged`` before they are applied; ``now`` is the operation about to begin."""
    if not merged.seen:
        return
    key = (now or in_progress.current(session.repo)).key
    found = _read(session, key)
    if found is None or (squashed and found.squashed != tuple(squashed)):
        began = recipes.of_options(how.options).text()
        found = MergeRecord(key, squashed=tuple(squashed), terms=began)
    found.asked |= merged.seen
    for path in (*merged.resolved, *merged.removed):
        found.done[path] = _deed(path, merged, how, base)
    _write(session, found)


def asked(session: Session) -> set[str]:
    """Return the paths that were settled or put in conflict in the operation in progress."""
    found = _read(session)
    return set() if found is None else found.asked


def begin(session: Session, squashed: Sequence[str] = ()) -> None:
    """Delete the record; for a squash begin a new one of the commits ``squashed``."""
    forget(session)
    if squashed:
        key = in_progress.current(session.repo).key
        _write(session, MergeRecord(key, squashed=tuple(squashed)))


def _write(session: Session, found: MergeRecord) -> None:
    body = {"operation": found.operation, "asked": sorted(found.asked), "squashed": found.squashed}
    body["terms"] = found.terms
    done = {path: asdict(deed) for path, deed in found.done.items()}
    _notes.write(_place(session), json.dumps({**body, "done": done}), durable=True)


def _deed(path: str, merged: Merged, how: How, base: str) -> Deed:
    manifest = merged.resolved.get(path)
    tensors = {name: by for name, by in merged.decided.get(path, {}).items() if by != engine.ROWS}
    asked, options = how.asked(), how.options
    only = replace(recipes.of_options(options), by_token=merged.tokens.get(path))
    statistics = tuple(one.oid for one in how.options.statistics if one is not None)
    return deeds.Deed(
        manifest.oid if manifest else "",
        trailers.Round(only, statistics, base).text(),
        recipes.Recipe(asked.default, asked.rules, searched=asked.searched).text(),
        tensors,
    )


def forget(session: Session) -> None:
    """Delete the record when the operation is over."""
    _notes.drop(_place(session))


def _place(session: Session) -> Path:
    return session.repo.private / "done.json"


def _read(session: Session, key: str | None = None) -> MergeRecord | None:
    """Return the record of the operation in progress, or of ``key``; None without a record."""
    try:
        found = _notes.read_json(_place(session))
        if found["operation"] != (key or in_progress.current(session.repo).key):
            return None
        done = {str(path): deeds.Deed(**deed) for path, deed in found["done"].items()}
        began = str(found.get("terms", ""))
        return MergeRecord(found["operation"], done, set(found["asked"]), tuple(found["squashed"]), began)
    except MALFORMED:
        return None


# -- in messages -------------------------------------------------------------------------


def tell(session: Session) -> None:
    """Update the trailers in the message of the coming commit from the record."""
    found = _read(session)
    if found is not None:
        for place in _messages(session, found):
            _tell_in(session, place, found, None)


def tell_in(session: Session, place: Path, index: Path) -> None:
    """Update the trailers of the message in file ``place``, for a commit of the index file ``index``."""
    found = _read(session)
    if found is not None and _messages(session, found):
        _tell_in(session, place, found, index)


def is_open(session: Session) -> bool:
    """Return whether the message of the coming commit needs trailers."""
    found = _read(session)
    return found is not None and bool(_messages(session, found))


def _tell_in(session: Session, place: Path, found: MergeRecord, index: Path | None) -> None:
    lines = [f"{trailers.TRAILER}: {one.text()}" for one in _rounds(session, found, index)]
    if place.exists():
        _rewrite(session, place, lines)


def _rounds(session: Session, found: MergeRecord, index: Path | None) -> list[Round]:
    staged = session.index_of(index)
    now = {path: staged.oid(path) or "" for path in found.done}
    done = {path: deed for path, deed in found.done.items() if now[path] == deed.manifest}
    applied = () if found.squashed else _applied(session)
    return [replace(one, applied=applied, squashed=found.squashed) for one in _of_deeds(done, found.asked)]


def _of_deeds(done: Mapping[str, Deed], asked: set[str]) -> list[Round]:
    """Return the rounds of what was ``done``; the last is about all paths if all ``asked`` were settled."""
    groups = deeds.gathered({path: deed for path, deed in done.items() if _tells(deed)})
    restricted = [True] * len(groups)
    if groups and asked <= done.keys():
        restricted[-1] = False
    return [_round(group, restriction) for group, restriction in zip(groups, restricted, strict=True)]


def told(merged: Merged, how: How, base: str = "", applied: tuple[str, ...] = ()) -> list[str]:
    """Return the trailers of a merge in memory that settled everything.

    ``applied`` are two commits whose difference was applied; the second does not descend from the first.
    """
    done = {path: _deed(path, merged, how, base) for path in (*merged.resolved, *merged.removed)}
    found = _of_deeds(done, merged.seen) or ([trailers.Round(recipes.Recipe())] if applied else [])
    return [f"{trailers.TRAILER}: {replace(one, applied=applied).text()}" for one in found]


def _tells(deed: Deed) -> bool:
    """Return whether a replay needs ``deed``: a strategy decided a tensor, or a base and the like."""
    terms = trailers.read_round(deed.terms)
    recipe = terms.recipe
    return bool(deed.tensors or terms.base or recipe.dtype or recipe.align or recipe.by_token)


def _round(group: Mapping[str, Deed], restricted: bool) -> Round:
    first = next(iter(group.values()))
    terms = trailers.read_round(first.terms)
    asked = trailers.read_round(first.asked).recipe
    tensors = {name: how for deed in group.values() for name, how in deed.tensors.items()}
    made = deeds.recipe(tensors, asked, every=terms.recipe.scope == "all")
    recipe = replace(terms.recipe, default=made.default, rules=made.rules, searched=made.searched)
    return replace(terms, recipe=recipe, paths=tuple(sorted(group)) if restricted else ())


def _applied(session: Session) -> tuple[str, ...]:
    """Return (base, theirs) of a cherry-pick or the like, which the parents of the commit do not tell."""
    now = in_progress.current(session.repo)
    if now.name in ("", "merge") or now.base is None or now.theirs is None:
        return ()
    return now.base, now.theirs


def _messages(session: Session, found: MergeRecord) -> list[Path]:
    """Return the files with the message of the coming commit; empty if the record is not about it."""
    gitdir = session.repo.gitdir
    now = in_progress.current(session.repo)
    if not now.name:
        return [gitdir / state_files.SQUASH_MSG] if found.squashed else []
    if now.name != "merge" and (now.base is None or now.theirs is None):
        return []
    if now.name != "rebase":
        return [gitdir / state_files.MERGE_MSG]
    done = gitdir / state_files.REBASE_DONE
    steps = done.read_bytes().rstrip(b"\n").split(b"\n") if done.exists() else []
    if not steps or steps[-1].split()[:1] == [] or steps[-1].split()[0] not in _PICKS:
        return []  # the commit combines several, and no trailer can tell that
    return [gitdir / state_files.MERGE_MSG, gitdir / state_files.REBASE_MERGE / "message"]


def _rewrite(session: Session, place: Path, lines: Sequence[str]) -> None:
    old = place.read_bytes().decode(errors="surrogateescape")
    kept = _HIDDEN.sub("", _TOLD.sub("", old))
    if lines and old == kept + "".join(f"{line}\n" for line in lines):
        return
    text = kept.encode(errors="surrogateescape")
    new = trailers.with_trailers(session.repo, text, lines) if lines else text
    if new != old.encode(errors="surrogateescape"):
        _fs.write_atomic(place, new)
