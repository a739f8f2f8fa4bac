"""``theta merge``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, deciding, mergeargs
from theta.cli.args import PASS, plain
from theta.cli.common import drive, ended, open_session, tell_full_disk
from theta.cli.resolve import settle, told
from theta.errors import ExitCode, ThetaError, UsageError
from theta.git.state_files import MERGE_HEAD

if TYPE_CHECKING:
    from theta.cli.deciding import Decision
    from theta.cli.mergeargs import MergeArgs
    from theta.git.run import Result
    from theta.porcelain.merge.drafts import Drafts, Held
    from theta.porcelain.merge.in_memory import Joined
    from theta.porcelain.workspace.session import Session

app = typer.Typer(add_completion=False)

_NOISE = ("Automatic merge", "Auto-merging", "Squash commit -- not updating HEAD", "Merge made by")

Scope = Annotated[
    str | None,
    typer.Option("--scope", help="conflicts (default), or all: also compute what only one side changed."),
]


@app.command(context_settings=PASS)
def merge(
    context: typer.Context,
    strategy: deciding.Strategies = None,
    rule: deciding.Rules = None,
    recipe: deciding.RecipePath = None,
    scope: Scope = None,
    seed: deciding.Seed = None,
    allow_nan: deciding.AllowNan = False,
    statistics: deciding.Statistics = None,
    dry_run: bool = typer.Option(
        False, "--dry-run", help="Show what would become of each tensor; change nothing."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print the result of --dry-run as JSON."),
    replay: str | None = typer.Option(
        None, "--replay", metavar="COMMIT", help="Do what COMMIT says it did again, and compare."
    ),
    go_on: bool = typer.Option(
        False, "--continue", help="Settle the remaining conflicts and commit the merge."
    ),
    abort: bool = typer.Option(False, "--abort", help="Abort the merge; restore what was before it."),
    no_commit: bool = typer.Option(False, "--no-commit", help="Stop before the commit."),
    no_prompt: deciding.NoPrompt = False,
) -> int:
    """Join histories: files as git merges them, checkpoints tensor by tensor.

    A tensor that one side changed is taken. One that both changed is settled by -X or --rule, or
    asked for on a terminal, or left as a conflict (exit code 1) that 'theta resolve' settles. Several
    branches are joined at once. How tensors were settled stands in the commit as a Theta-Merge
    trailer. git merge's other options apply; 'theta help merging-workflows' tells more.
    """
    session = open_session()
    args = mergeargs.read(plain(context.args))
    options = deciding.Options(
        strategy or [], rule or [], recipe, scope, seed, allow_nan, statistics or [], no_prompt, dry_run
    )
    mergeargs.check(args, options, {"--continue": go_on, "--abort": abort, "--replay": replay is not None})
    if as_json and not dry_run:
        raise UsageError("--json goes with --dry-run", hint="theta merge --dry-run --json BRANCH")
    if replay is not None:
        from theta.cli.rehearse import redo

        return redo(session, replay)
    if abort or args.has("--quit"):
        from theta.porcelain.merge import answers, recording

        answers.forget(session)
        recording.forget(session)
        return drive(session, "merge", *(["--abort"] if abort else []), *args.args, refresh=False)
    if go_on:
        with session.exclusive():
            return _go_on(session, options, no_commit)
    return _start(session, args, options, no_commit, as_json)


def _start(
    session: Session, args: MergeArgs, options: deciding.Options, no_commit: bool, as_json: bool
) -> int:
    file = deciding.read_recipe(options.recipe)
    names = args.names or _named(session, file.models if file else ()) or [mergeargs.upstream(session)]
    heads = mergeargs.commits(session, names)
    ours = session.repo.head()
    order = deciding.order(session, file, [ours or "", *heads]) if file and file.models else None
    mergeargs.check_statistics(options, 1 + len(heads))
    mergeargs.check_rules(session, options, [*filter(None, [ours]), *heads])
    decision = deciding.decide(session, options, file, order)
    base = mergeargs.commits(session, [file.base])[0] if file and file.base else None
    if strategy := mergeargs.foreign(session, args, len(heads)):
        mergeargs.refuse_ours(options, f"git's strategy {strategy} takes checkpoints as whole files")
        return drive(
            session, "merge", *decision.gits, *(["--no-commit"] if no_commit else []), *args.args, *names
        )
    todo = _Merge(session, args, decision, names, heads, base, no_commit, options)
    if options.dry_run:
        from theta.cli.rehearse import rehearse

        todo.reduce()
        return rehearse(session, heads, decision, base, as_json=as_json)
    with session.exclusive():
        return todo.run()


def _named(session: Session, models: tuple[str, ...]) -> list[str]:
    """The revisions of a recipe that are not what is checked out."""
    head = session.repo.head()
    return [name for name in models if mergeargs.commits(session, [name]) != [head]]


@dataclass
class _Merge:
    """One ``theta merge`` with revisions, under the lock."""

    session: Session
    args: MergeArgs
    decision: Decision
    names: list[str]
    heads: list[str]
    base: str | None
    no_commit: bool
    options: deciding.Options
    ours: list[str] = field(default_factory=list)
    checked: tuple[str, ...] = ()

    def run(self) -> int:
        """Merge; return the exit code."""
        from theta.cli import conflicts
        from theta.porcelain.drive import overwrites
        from theta.porcelain.merge import recording
        from theta.porcelain.workspace import agreement, in_progress

        if left := in_progress.not_concluded(self.session.repo):
            return conflicts.not_concluded(left)
        agreement.refresh(self.session)
        if not in_progress.current(self.session.repo).name:
            recording.begin(self.session)
        self.reduce()
        if not self.heads:
            console.note("Already up to date.")
            return 0
        self.checked = overwrites.options(self.session, ["merge", *self.heads])
        if len(self.heads) > 1 and not self._only_forward():
            return self._many()
        code = self._at_once() if self._is_plain() else None
        return self._one() if code is None else code

    def reduce(self) -> None:
        """Leave out what is part of HEAD or of another branch, and HEAD itself if it is part of one."""
        head = self.session.repo.head()
        self.ours = [head] if head else []
        if head is None:
            return
        from theta.git.commit_graph import independent

        kept = independent(self.session.repo, [head, *self.heads])
        names = dict(zip(reversed(self.heads), reversed(self.names), strict=True))
        joined = [commit for commit in kept if commit != head]
        parts = [name for commit, name in names.items() if commit not in joined]
        mergeargs.refuse_parts(self.options, parts, everything=not joined)
        if len(names) > 1 or head not in kept or self.decision.how.everything:
            self.heads = joined  # git tells best what becomes of a single branch
        else:
            self.heads = self.heads[:1]
        self.names = [names[commit] for commit in self.heads]
        if head not in kept and len(self.heads) > 1 and not self._stays():
            self.ours = []

    def _stays(self) -> bool:
        """Whether HEAD becomes a parent even where another branch has all of it."""
        return bool(self.options.recipe) or self.args.has("--no-ff")

    def _only_forward(self) -> bool:
        says_only = self.session.repo.config.get("merge.ff") == "only"
        return self.args.has("--ff-only") or (says_only and not self.args.has("--no-ff", "--ff"))

    def _is_plain(self) -> bool:
        from theta.porcelain.merge import in_memory

        ours = self.session.repo.head()
        if self.checked or ours is None or not self.args.is_plain:
            return False
        if self.decision.prompts or self.decision.gits:
            return False
        return in_memory.is_plain(self.session, ours, self.heads[0])

    def _at_once(self) -> int | None:
        """Merge in memory and then apply it; None when something is in the way, which git tells best."""
        from theta.git.run import GitFailedError
        from theta.porcelain.merge import in_memory
        from theta.porcelain.merge.drafts import Drafts, Files, Held

        ours, theirs = self.session.repo.resolve("HEAD"), self.heads[0]
        with Held(self.session) as held, Drafts(self.session, held) as drafts:
            files = Files(held, drafts)
            try:
                joined = deciding.asking(
                    self.decision.how,
                    lambda how: in_memory.join(self.session, ours, theirs, how, self.base, files),
                )
                if not joined.clean:
                    return None
                drafts.sync()
                self._apply(joined)
            except GitFailedError as error:
                self.session.undo(killed=error.code < 0)
                return None
            held.release()
            return self._finish(joined, drafts)

    def _one(self) -> int:
        from theta.porcelain.merge.drafts import Held

        with Held(self.session) as held:
            return self._with(held)

    def _with(self, held: Held) -> int:
        from theta.porcelain.look import commit_summary
        from theta.porcelain.merge import in_memory, recording, resolving
        from theta.porcelain.stage import committing

        before = self.session.repo.head()
        done = self._git()
        fresh = self.session.again()
        merging_now = done.code in (0, 1) and bool(fresh.repo.merge_heads())
        squashed = self.args.has("--squash") and (done.code == 0 or bool(resolving.unmerged(fresh)))
        if not merging_now and not squashed:
            _echo(done.stdout, done.stderr, set())
            ended(self.session, done.code if done.code >= 0 else 128 - done.code)
            if committing.finish(self.session, before) is not None and before and not self._is_silent:
                after = self.session.again()
                for line in commit_summary.moved(after, before, after.repo.resolve("HEAD")):
                    console.note(line)
            return done.code
        if squashed:
            recording.begin(fresh, self.heads)
        merged = deciding.asking(
            self.decision.how,
            lambda how: in_memory.after_git_merge(fresh, self.heads[0], how, held, base=self.base),
        )
        _echo(done.stdout, done.stderr, merged.seen)
        code = told(fresh, merged, self.decision.how, quiet=True)
        return self._end(code, merging_now)

    @property
    def _is_silent(self) -> bool:
        return self.args.has("-q", "--quiet", "-n", "--stat", "--no-stat", "--summary", "--no-summary")

    def _git(self) -> Result:
        """Let git merge files, and make no commit."""
        side = self.decision.side
        gits = [*self.decision.gits, *([f"-X{side}"] if side else [])]
        args = [arg for arg in self.args.args if arg not in ("-e", "--edit")]
        self.session.moving(*self.heads)
        git = self.session.repo.git().in_directory(Path.cwd())
        if self._computes_ahead():
            args.append("--no-ff")
        # git's diffstat would list the files below .theta/.
        quiet = (*self.checked, "-c", "merge.stat=false")
        return git.run(*quiet, "merge", "--no-commit", *gits, *args, *self.names, check=False)

    def _computes_ahead(self) -> bool:
        """Whether git could fast-forward, but values of both sides are to be computed with."""
        head = self.session.repo.head()
        if head is None or not self.decision.how.everything:
            return False
        from theta.git.commit_graph import octopus_base

        ahead = octopus_base(self.session.repo, [head, *self.heads]) == head
        if ahead and self.args.has("--ff-only"):
            raise UsageError("a fast-forward computes nothing", hint="leave out --ff-only")
        return ahead

    def _many(self) -> int:
        from theta.cli import conflicts
        from theta.git.commit_graph import octopus_base
        from theta.git.run import GitFailedError
        from theta.porcelain.merge import octopus

        stashes = octopus.stashes(self.session, self.args.args)
        if not stashes and (staged := octopus.staged(self.session)):
            return conflicts.in_the_way(staged)
        sides = [*self.ours, *self.heads]
        if octopus_base(self.session.repo, sides) is None:
            self._refuse_unrelated()
        joined = deciding.asking(
            self.decision.how,
            lambda how: octopus.join(self.session, sides, how, self.base),
        )
        if not joined.clean:
            conflicts.refused(joined, self.decision.how)
            return int(ExitCode.DIFFERENCES)
        if stashes:
            octopus.stash(self.session)
        try:
            self._apply(joined)
        except GitFailedError as error:
            self.session.undo(killed=error.code < 0)
            octopus.unstash(self.session)
            if not self.checked:
                raise
            console.err(*error.stderr.rstrip().split("\n"), "Merge with strategy octopus failed.")
            return 2
        return self._finish(joined)

    def _apply(self, joined: Joined) -> None:
        """Bring a clean merge into the index, and files and manifests into the worktree."""
        from theta.porcelain.merge import octopus

        text = self.args.message() or octopus.message(self.session, self.names, self.heads)
        squash, how, checked = self.args.has("--squash"), self.decision.how, self.checked
        mode = "no-ff" if self._stays() else ""
        octopus.apply(
            self.session,
            joined,
            self.heads,
            text,
            how,
            self.base,
            squash=squash,
            mode=mode,
            checked=checked,
        )

    def _finish(self, joined: Joined, drafts: Drafts | None = None) -> int:
        """Write the checkpoints of a merge that was applied, tell of it and commit it."""
        from theta.cli import conflicts
        from theta.porcelain.merge import concluding, resolving

        fresh = self.session.again()
        with console.progress("writing checkpoints") as progress:
            resolving.fill(fresh, progress, drafts)
        conflicts.report(joined.merged)
        if self.args.has("--squash"):
            concluding.squashed(fresh)
        return self._end(0, not self.args.has("--squash"))

    def _refuse_unrelated(self) -> None:
        if not self.args.has("--allow-unrelated-histories"):
            raise ThetaError(
                "refusing to merge unrelated histories",
                hint="--allow-unrelated-histories merges them nevertheless",
            )

    def _end(self, code: int, merging_now: bool) -> int:
        from theta.porcelain.merge import concluding

        if code == 0 and merging_now and not self.no_commit and not self.args.has("--no-commit"):
            return _conclude(
                self.session,
                partial(concluding.commit, names=self.names, options=self.args.to_commit),
            )
        return code


def _echo(stdout: bytes, stderr: bytes, checkpoints: set[str]) -> None:
    """Pass on what git said, but for what theta does otherwise."""
    for line in stdout.decode("utf-8", "replace").splitlines():
        about_ours = ".theta/" in line or any(
            line.endswith(f" in {path}") or line.startswith(f"CONFLICT (modify/delete): {path} ")
            for path in checkpoints
        )
        if not line.startswith(_NOISE) and not about_ours:
            console.note(line)
    for line in stderr.decode("utf-8", "replace").splitlines():
        if "stopped before committing" not in line:
            console.err(line)


def _go_on(session: Session, options: deciding.Options, no_commit: bool) -> int:
    from theta.porcelain.merge import resolving
    from theta.porcelain.workspace import in_progress
    from theta.porcelain.workspace.agreement import refresh

    now = in_progress.current(session.repo)
    if not now.name:
        raise ThetaError(f"there is no merge in progress ({MERGE_HEAD} missing)")
    refresh(session)
    decision = deciding.decide_here(session, options)
    if not resolving.unmerged(session):
        mergeargs.refuse_ours(options, "nothing is in conflict any more")
    code = settle(session, decision, quiet=now.name == "merge")
    if code or no_commit or now.name != "merge":
        return code
    return _conclude(session, lambda session: session.repo.git().show("commit", "--quiet", "--no-edit"))


def _conclude(session: Session, commit: Callable[[Session], int]) -> int:
    """Let ``commit`` make the commit of the merge that is settled, and tell of it."""
    from theta.cli.commit import report_summary
    from theta.porcelain.merge import answers, recording, trailers
    from theta.porcelain.stage import committing

    before = session.repo.head()
    committing.check_identity(session)
    recording.tell(session)
    trailers.conclude(session)
    code = tell_full_disk(session, commit(session))
    summary = committing.finish(session, before)
    if code == 0 and summary is not None:
        answers.forget(session)
        recording.forget(session)
        report_summary(session, summary, as_json=False)
    return code
