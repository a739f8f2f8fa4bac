"""Merging the checkpoints of two commits: the request, the decisions, the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from theta.errors import UsageError, concerning
from theta.lazy import Module
from theta.merging import engine
from theta.merging.adapters import scales
from theta.merging.adapters.scales import Scales
from theta.merging.documents import result_texts
from theta.merging.documents.model_files import CONFIG
from theta.merging.engine import MergeOptions, Outcome, RehearsedTensor
from theta.merging.recipes import Recipe
from theta.merging.states import Conflict, WholeModel
from theta.merging.strategies import Policy
from theta.porcelain.merge import keeping, made_texts
from theta.porcelain.merge.versions import Recut, Stages, Three, Versions, beside, in_folder
from theta.porcelain.workspace.exchange import Exchange
from theta.porcelain.workspace.session import Session
from theta.progress import Progress
from theta.store.format.manifest import Manifest
from theta.store.odb.packs import PackWriter

if TYPE_CHECKING:
    from theta.engine import merge_parts
    from theta.engine.merge_parts import MergeWorkers
    from theta.porcelain.merge import aligning, token_matching
    from theta.porcelain.merge.made_texts import OpenText
    from theta.porcelain.merge.token_matching import MatchedTokens
else:
    merge_parts = Module("theta.engine.merge_parts")
    aligning = Module("theta.porcelain.merge.aligning")
    token_matching = Module("theta.porcelain.merge.token_matching")

FILE: Final = "(file)"
"""The name of the conflict about a whole checkpoint that one side deleted."""


@dataclass
class Merged:
    """The results of a merge of checkpoints.

    Attributes:
        resolved: path -> merged manifest.
        removed: paths that the merge deletes.
        conflicts: path -> what is left in conflict.
        decided: path -> name of a tensor -> the strategy that settled it.
        rows: path -> what a dry run would do.
        texts: path -> content, of configurations that say the rank of a merged adapter, or the dtype that was
            asked for, and of files that tell the tokens of both sides.
        tokens: path -> id of the vocabulary file by which rows were matched by token.
        dtypes: path -> the dtype that the configuration beside a model is to tell.
        open_texts: path -> a file in conflict that names tokens by their ids, or a dtype.
    """

    resolved: dict[str, Manifest] = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    conflicts: dict[str, list[Conflict]] = field(default_factory=dict)
    decided: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, list[RehearsedTensor]] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    tokens: dict[str, str] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    open_texts: dict[str, OpenText] = field(default_factory=dict)

    @property
    def seen(self) -> set[str]:
        """All paths that were merged or are in conflict."""
        return {*self.resolved, *self.removed, *self.conflicts, *self.rows, *self.texts, *self.open_texts}

    def add(
        self, path: str, outcome: Outcome, configurations: Sequence[bytes | None] = (), *, dry_run: bool
    ) -> None:
        """Add the result of the checkpoint at ``path``, an adapter if there are ``configurations``."""
        configuration = next(iter(configurations), None)
        self.decided[path] = outcome.decided
        if outcome.dtype is not None and not outcome.conflicts and not configurations:
            self.dtypes[path] = outcome.dtype  # the configuration beside an adapter is that of its base
        if dry_run:
            self.rows[path] = outcome.rows
        if outcome.kept is not None:
            self.resolved[keeping.place_of(path)] = outcome.kept
        if outcome.manifest is not None:
            self.resolved[path] = outcome.manifest
            if outcome.rank is not None and configuration is not None:
                self.texts[beside(path)] = scales.with_rank(configuration, outcome.rank)
        elif outcome.conflicts:
            self.conflicts[path] = outcome.conflicts

    def replace(self, path: str, other: Merged) -> None:
        """Replace the result of ``path`` by that of ``other``."""
        self.removed = [one for one in self.removed if one != path]
        self.removed += [path] if path in other.removed else []
        self.resolved.pop(path, None)
        self.conflicts.pop(path, None)
        self.texts.pop(beside(path), None)
        places = (beside(path), in_folder(path, CONFIG))
        self.texts |= {place: other.texts[place] for place in places if place in other.texts}
        if path in other.resolved:
            self.resolved[path] = other.resolved[path]
        if path in other.conflicts:
            self.conflicts[path] = other.conflicts[path]


@dataclass(frozen=True)
class How:
    """How conflicts are decided.

    Args:
        policy: chooses a strategy for each tensor.
        options: scope, seed, statistics and so on, for the engine.
        whole: ``policy`` also decides a file that one side deleted.  Otherwise it stays in conflict
            unless the other side kept its values, as with git's own ``-X``.
        by_path: returns how the checkpoint at a path is decided, if paths differ.
        progress: counts the bytes that were computed.
        asked: the rules that ``policy`` follows; they keep the record of its decisions short.
        configurations: the configuration of an adapter on each side.
        aligned: the files whose units are aligned together, if that is asked for.
    """

    policy: Policy
    options: MergeOptions = field(default_factory=MergeOptions)
    whole: bool = False
    by_path: Callable[[str], How] | None = None
    progress: Progress | None = None
    asked: Callable[[], Recipe] = Recipe
    configurations: Sequence[bytes | None] = ()
    aligned: aligning.AlignedFiles | None = None

    @property
    def scales(self) -> tuple[Scales | None, ...]:
        """The scales of an adapter on each side."""
        return tuple(scales.parsed(data) if data is not None else None for data in self.configurations)

    def at(self, path: str) -> How:
        """Return how the checkpoint at ``path`` is decided."""
        return replace(self.by_path(path), progress=self.progress) if self.by_path else self

    @property
    def everything(self) -> bool:
        """Whether the strategy also decides tensors that only one side changed."""
        return self.options.scope == "all"

    @property
    def wants_all(self) -> bool:
        """Whether all differences must be compared: with scope "all" or a dtype, and in a dry run."""
        return self.everything or self.options.dry_run or self.options.dtype is not None


def merge_checkpoints(
    session: Session,
    pack: PackWriter,
    versions: Versions,
    paths: Mapping[str, Stages],
    how: How,
    files: Exchange | None = None,
) -> Merged:
    """Merge every checkpoint that both sides changed, even if git could merge its manifest as text.

    ``files`` are those of the worktree, for a merge that happens there.
    """
    result = Merged()
    words = _Words(session, versions)
    recut = [m for m in versions.recut() if m.paths & paths.keys()]
    if recut and how.at(min(recut[0].targets)).options.keeps:
        raise UsageError("a model in other shards than its base has no momentum", hint="reshard it first")
    for model in recut:
        hows = {path: _in_model(how.at(path), model.whole) for path in model.targets}
        hows = {path: _by_token(one, path, words, result) for path, one in hows.items()}
        _merge_recut(session, pack, model, paths, hows, files, result)
    together = {path for model in recut for path in model.paths}
    models: aligning.Models | None = None
    for path, stages in paths.items():
        if how.at(path).options.keeps and keeping.is_kept(path):
            continue
        if path in together or (0 not in stages and not all_manifests(session, stages)):
            continue
        base, ours, theirs = versions.of(stages)
        if ours is not None and theirs is not None:
            if 0 not in stages or _is_asked(base, ours, theirs, how.at(path), words.needs(path, how)):
                asked = _of(how.at(path), versions.configurations(path, (ours, theirs)))
                asked = _keeping(session, path, versions, _in_model(asked, versions.model(path)))
                asked = _by_token(asked, path, words, result)
                if asked.options.align is not None:
                    models = models or aligning.Models(versions)
                    asked = replace(asked, aligned=models.of(path, ours, theirs))
                _merge(session, pack, path, (base, ours, theirs), asked, files, result)
        elif 0 not in stages:
            kept = ours or theirs
            unchanged = base is not None and kept is not None and kept.same_value(base)
            if kept is None or (unchanged and versions.is_unmoved(path, stages)):
                result.removed.append(path)
            else:
                _choose(path, (base, ours, theirs), how.at(path), result)
    tell_dtypes(versions, result)
    return result


def coming_texts(
    session: Session, versions: Versions, paths: Mapping[str, Stages], how: How
) -> dict[str, bytes]:
    """Return path -> content of the files that :func:`merge_checkpoints` would make.

    Configurations of adapters are not among them.
    """
    result, words = Merged(), _Words(session, versions)
    for path, stages in paths.items():
        if 0 in stages or all_manifests(session, stages):
            _, ours, theirs = versions.of(stages)
            if ours is not None and theirs is not None:
                dtype = _by_token(how.at(path), path, words, result).options.dtype
                if ours.data != theirs.data and dtype and not versions.configurations(path, (ours, theirs)):
                    result.dtypes[path] = dtype
    tell_dtypes(versions, result)
    return result.texts | {path: text.data for path, text in result.open_texts.items()}


def tell_dtypes(versions: Versions, result: Merged) -> None:
    """Let the configurations beside the models of ``result`` tell the dtypes that these have now."""
    told: dict[str, set[str]] = {}
    for path, dtype in result.dtypes.items():
        told.setdefault(in_folder(path, CONFIG), set()).add(dtype)
    for path, dtype in result.dtypes.items():
        if len(told[in_folder(path, CONFIG)]) == 1:
            _tell_dtype(versions, path, dtype, result)


def _tell_dtype(versions: Versions, path: str, dtype: str, result: Merged) -> None:
    """Let the configuration beside the model at ``path`` tell ``dtype``.

    One that is in conflict is merged anew, since the versions may differ in nothing but their dtypes.
    """
    place = in_folder(path, CONFIG)
    data, torn = result.texts.get(place) or versions.merged_text(place), result.open_texts.get(place)
    if torn is None and data is not None:
        told = result_texts.in_dtype(data, dtype)
        result.texts |= {place: told} if told != data else {}
        return
    texts = versions.texts(path, CONFIG) if torn is None else torn.versions
    telling = [None if text is None else result_texts.in_dtype(text, dtype) for text in texts]
    if None in telling[1:] or telling == [*texts]:
        return
    made = made_texts.merged(versions.session, telling)
    result.open_texts.pop(place, None)
    if made.is_clean:
        result.texts[place] = made.data
    else:
        result.open_texts[place] = made


def needing_tokens(session: Session, versions: Versions, paths: Mapping[str, Stages], how: How) -> list[str]:
    """Return those of ``paths``, which git merged, whose rows are to be matched by token nevertheless."""
    words, found = _Words(session, versions), []
    for path, stages in paths.items():
        base, ours, theirs = versions.of(stages)
        if ours is not None and theirs is not None:
            before = base.data if base else None
            if words.needs(path, how)(ours.data != before, theirs.data != before):
                found.append(path)
    return found


def _of(how: How, configurations: Sequence[bytes | None]) -> How:
    """Return ``how`` for an adapter with ``configurations``, one for each side."""
    return replace(how, configurations=configurations) if configurations else how


def _in_model(how: How, model: WholeModel | None) -> How:
    """Return ``how`` for a shard of ``model``."""
    return how if model is None else replace(how, options=replace(how.options, model=model))


def _keeping(session: Session, path: str, versions: Versions, how: How) -> How:
    """Return ``how`` with what strategies kept for the checkpoint at ``path``."""
    if not how.options.keeps:
        return how
    return replace(how, options=keeping.prepared(session, path, versions.trees, how.options))


@dataclass
class _Words:
    """The tokens of the models that are merged, looked up once for each folder."""

    session: Session
    versions: Versions
    _found: dict[tuple[str, str], MatchedTokens | None] = field(default_factory=dict)

    def of(self, path: str, asked: str) -> MatchedTokens | None:
        """Return the tokens of the checkpoint at ``path``; None if they are matched by number."""
        key = path.rpartition("/")[0], asked
        if key not in self._found:
            is_known = self.versions.vocabulary(path) is not None
            self._found[key] = (
                token_matching.matched(self.session, self.versions, path, asked) if is_known else None
            )
        return self._found[key]

    def needs(self, path: str, how: How) -> Callable[[bool, bool], bool]:
        """Return what says, of which sides changed the checkpoint at ``path``, whether rows need matching.

        They do not where one side alone changed tokens and values: git takes both from it.
        """
        by_token = how.at(path).options.by_token

        def asked(ours: bool, theirs: bool) -> bool:
            found = self.of(path, by_token) if by_token is not None else None
            if found is None:
                return False
            words = self.versions.changed_vocabulary(path)
            alone = not (ours or words[0]) or not (theirs or words[1])
            return not alone or bool(self.unmade(found.texts) or found.open_texts)

        return asked

    def unmade(self, texts: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return those of ``texts`` that say something else than the files which git merged."""
        merged = self.versions.merged_text
        return {path: data for path, data in texts.items() if not made_texts.same_text(merged(path), data)}


def _by_token(how: How, path: str, words: _Words, result: Merged) -> How:
    """Return ``how`` with the tokens of the checkpoint at ``path``, if its rows are matched by token."""
    options = how.options
    found = words.of(path, options.by_token) if options.by_token is not None else None
    if found is None:
        return how
    if options.keeps or options.align is not None:
        what = "--align compares" if options.align is not None else "a kept momentum has"
        raise UsageError(
            f"{path}: {what} rows by number, and tokens have other ids on the sides",
            hint=token_matching.BY_NUMBER,
        )
    result.texts |= words.unmade(found.texts)
    result.open_texts |= found.open_texts
    if found.tokenizer:
        result.tokens[path] = found.tokenizer
    return replace(how, options=replace(options, tokens=found.order))


def _merge_recut(
    session: Session,
    pack: PackWriter,
    model: Recut,
    paths: Mapping[str, Stages],
    hows: Mapping[str, How],
    files: Exchange | None,
    result: Merged,
) -> None:
    """Merge a sharded model that one side resharded; its files are settled together or not at all."""
    trial = Merged()
    if any(how.options.align is not None for how in hows.values()):
        raise UsageError("--align does not join shards cut differently", hint="theta convert cuts them alike")
    for path, sides in model.targets.items():
        _merge(session, pack, path, sides, hows[path], files, trial)
    result.rows |= trial.rows
    if trial.conflicts:
        # Git left those files in conflict that one side deleted and the other changed.
        left = sorted(path for path in model.paths & paths.keys() if 0 not in paths[path])
        result.conflicts |= {path: [] for path in left[1:]}
        result.conflicts[(left or sorted(model.targets))[0]] = [
            item for found in trial.conflicts.values() for item in found
        ]
        return
    result.dtypes |= trial.dtypes
    result.removed += sorted(model.gone & paths.keys())
    if not any(how.options.dry_run for how in hows.values()):
        result.resolved |= trial.resolved
        result.decided |= trial.decided


def workers(session: Session, result: Manifest) -> MergeWorkers | None:
    """Return the workers for a merge into a file like ``result``; None for the threads of this process."""
    engine = session.engine(result.nbytes)
    return None if engine is None else merge_parts.MergeWorkers(engine, session.objects)


def all_manifests(session: Session, stages: Stages) -> bool:
    """Return whether all sides are manifests; the user must merge anything else in an editor.

    The base need not be a manifest: when histories criss-cross, git's base may contain conflict markers.
    """
    sides = [oid for stage, oid in stages.items() if stage > 1 or len(stages) == 1]
    return all(session.manifest_or_none(oid) is not None for oid in sides)


def _is_asked(
    base: Manifest | None,
    ours: Manifest,
    theirs: Manifest,
    how: How,
    needs_tokens: Callable[[bool, bool], bool],
) -> bool:
    """Return whether both sides changed the checkpoint, or one side did and ``how`` wants all changes.

    ``needs_tokens`` says whether rows are to be matched if ours, and theirs, changed it.
    """
    before = base.data if base else None
    if ours.data != theirs.data and (how.wants_all or before not in (ours.data, theirs.data)):
        return True
    return needs_tokens(ours.data != before, theirs.data != before)


def _merge(
    session: Session,
    pack: PackWriter,
    path: str,
    sides: tuple[Manifest | None, Manifest, Manifest],
    how: How,
    files: Exchange | None,
    result: Merged,
) -> None:
    base, *both = sides
    options = how.options
    if files is not None:
        old, coming = tuple(map(files.old, both)), partial(files.begin, path)
        options = replace(options, files=old, coming=coming)
    options = replace(options, adapters=how.scales, workers=workers(session, both[0]))
    with concerning(path):
        if how.aligned is not None:
            outcome = aligning.merge(session, pack, how.aligned, sides, how.policy, options, how.progress)
        else:
            outcome = engine.merge(session.objects, pack, base, both, how.policy, options, how.progress)
    result.add(path, outcome, how.configurations, dry_run=how.options.dry_run)


def _choose(path: str, sides: Three, how: How, result: Merged) -> None:
    """Decide about a checkpoint that one side changed and the other deleted."""
    base, ours, theirs = sides
    question = Conflict(FILE, None, None, None)
    strategy = how.policy(question) if how.whole else None
    number = strategy.side(FILE, 2) if strategy is not None else None
    if strategy is None or (number is None and strategy.name != "base"):
        result.conflicts[path] = [question]
        return
    chosen = base if number is None else (ours, theirs)[number]
    result.decided[path] = {FILE: str(strategy)}
    if chosen is None:
        result.removed.append(path)
    else:
        result.resolved[path] = chosen
