"""``theta merge``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from theta.cli import console, deciding, mergeargs
from theta.cli.args import PASS, plain
from theta.cli.common import again, drive, open_session
from theta.cli.resolve import settle, told
from theta.errors import ExitCode, ThetaError, UsageError

if TYPE_CHECKING:
    from theta.cli.deciding import Decision
    from theta.cli.mergeargs import MergeArgs
    from theta.git.run import Result
    from theta.porcelain.drafts import Drafts, Held
    from theta.porcelain.merging import Joined
    from theta.porcelain.session import Session

app = typer.Typer(add_completion=False)

_NOISE = ("Automatic merge", "Auto-merging", "Squash commit -- not updating HEAD", "Merge made by")

Scope = Annotated[
    str | None,
    typer.Option("--scope", help="conflicts (as git), or all: what one side changed is merged too"),
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
    dry_run: bool = typer.Option(False, "--dry-run", help="tell what each tensor would do; change nothing"),
    as_json: bool = typer.Option(False, "--json", help="of --dry-run: as JSON"),
    replay: str | None = typer.Option(
        None, "--replay", metavar="COMMIT", help="do a merge again and compare"
    ),
    go_on: bool = typer.Option(False, "--continue", help="settle what is left and conclude the merge"),
    abort: bool = typer.Option(False, "--abort", help="give the merge up; everything is as it was before"),
    no_commit: bool = typer.Option(False, "--no-commit", help="stop before the commit"),
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
    if sum((go_on, abort, dry_run, replay is not None)) > 1:
        raise UsageError("only one of --continue, --abort, --dry-run and --replay")
    if replay is not None:
        from theta.cli.rehearse import redo

        return redo(session, replay)
    if abort or args.has("--quit"):
        from theta.porcelain import answering, recording

        answering.forget(session)
        recording.forget(session)
        return drive(session, "merge", *(["--abort"] if abort else []), *args.args, refresh=False)
    if go_on:
        with session.exclusive():
            return _go_on(session, deciding.decide(session, options), no_commit)
    return _start(session, args, options, no_commit, as_json)


def _start(
    session: Session, args: MergeArgs, options: deciding.Options, no_commit: bool, as_json: bool
) -> int:
    file = deciding.read_recipe(options.recipe)
    names = args.names or _named(session, file.models if file else ())
    heads = mergeargs.commits(session, names)
    ours = session.repo.head()
    order = _order(session, file.models, [ours or "", *heads]) if file and file.models else None
    decision = deciding.decide(session, options, file, order)
    base = mergeargs.commits(session, [file.base])[0] if file and file.base else None
    if args.foreign:
        return drive(
            session, "merge", *decision.gits, *(["--no-commit"] if no_commit else []), *args.args, *names
        )
    todo = _Merge(session, args, decision, names, heads, base, no_commit)
    if options.dry_run:
        from theta.cli.rehearse import rehearse

        return rehearse(session, heads, decision, base, as_json=as_json)
    with session.exclusive():
        return todo.run()


def _named(session: Session, models: tuple[str, ...]) -> list[str]:
    """The revisions of a recipe that are not what is checked out."""
    head = session.repo.head()
    return [name for name in models if mergeargs.commits(session, [name]) != [head]]


def _order(session: Session, models: tuple[str, ...], sides: list[str]) -> list[int]:
    """For each side its number among the models of a recipe."""
    known = mergeargs.commits(session, models)
    return [known.index(side) for side in sides if side in known]


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
    checked: tuple[str, ...] = ()

    def run(self) -> int:
        """Merge; answers the exit code."""
        from theta.porcelain import guarding, octopus, operations, recording, settle

        settle.refresh(self.session)
        if not operations.current(self.session.repo).name:
            recording.begin(self.session)
        if len(self.heads) > 1:
            kept = octopus.independent(self.session, [self.session.repo.resolve("HEAD"), *self.heads])
            found = [(name, head) for name, head in zip(self.names, self.heads, strict=True) if head in kept]
            self.names, self.heads = [name for name, _ in found], [head for _, head in found]
        if not self.heads:
            console.note("Already up to date.")
            return 0
        self.checked = guarding.options(self.session, ["merge", *self.heads])
        if len(self.heads) > 1 and not self.args.has("--ff-only"):
            return self._many()
        code = self._at_once() if self._is_plain() else None
        return self._one() if code is None else code

    def _is_plain(self) -> bool:
        from theta.porcelain import merging

        ours = self.session.repo.head()
        if self.checked or ours is None or not self.args.is_plain:
            return False
        if self.decision.prompts or self.decision.gits:
            return False
        return merging.is_plain(self.session, ours, self.heads[0])

    def _at_once(self) -> int | None:
        """Merge in memory and then apply it; none where anything is in the way, which git tells best."""
        from theta.git.run import GitFailedError
        from theta.porcelain import merging
        from theta.porcelain.drafts import Drafts, Files, Held

        ours, theirs = self.session.repo.resolve("HEAD"), self.heads[0]
        with Held(self.session) as held, Drafts(self.session, held) as drafts:
            files = Files(held, drafts)
            try:
                joined = deciding.asking(
                    self.decision.how,
                    lambda how: merging.join(self.session, ours, theirs, how, self.base, files),
                )
                if not joined.clean:
                    return None
                drafts.sync()
                self._apply(joined)
            except GitFailedError:
                return None
            held.release()
            return self._finish(joined, drafts)

    def _one(self) -> int:
        from theta.porcelain.drafts import Held

        with Held(self.session) as held:
            return self._with(held)

    def _with(self, held: Held) -> int:
        from theta.porcelain import committing, merging, recording, resolving

        before = self.session.repo.head()
        done = self._git()
        fresh = again(self.session)
        merging_now = done.code in (0, 1) and (fresh.repo.gitdir / "MERGE_HEAD").exists()
        squashed = self.args.has("--squash") and (done.code == 0 or bool(resolving.unmerged(fresh)))
        if not merging_now and not squashed:
            _echo(done.stdout, done.stderr, set())
            committing.finish(self.session, before)
            return done.code
        if squashed:
            recording.begin(fresh, self.heads)
        merged = deciding.asking(
            self.decision.how,
            lambda how: merging.after_git_merge(fresh, self.heads[0], how, held, base=self.base),
        )
        _echo(done.stdout, done.stderr, merged.seen)
        code = told(fresh, merged, quiet=True)
        return self._end(code, merging_now)

    def _git(self) -> Result:
        """Let git merge files, and make no commit."""
        side = self.decision.side
        gits = [*self.decision.gits, *([f"-X{side}"] if side else [])]
        args = [arg for arg in self.args.args if arg not in ("-e", "--edit")]
        git = self.session.repo.git().in_directory(Path.cwd())
        return git.run(*self.checked, "merge", "--no-commit", *gits, *args, *self.names, check=False)

    def _many(self) -> int:
        from theta.cli import conflicts
        from theta.git.run import GitFailedError
        from theta.porcelain import octopus

        ours = self.session.repo.resolve("HEAD")
        if octopus.merge_base(self.session, [ours, *self.heads]) is None:
            self._refuse_unrelated()
        joined = deciding.asking(
            self.decision.how,
            lambda how: octopus.join(self.session, [ours, *self.heads], how, self.base),
        )
        if not joined.clean:
            conflicts.refused(joined)
            return int(ExitCode.DIFFERENCES)
        try:
            self._apply(joined)
        except GitFailedError as error:
            if not self.checked:
                raise
            console.err(f"{error.stderr.rstrip()}\nMerge with strategy octopus failed.")
            return 2
        return self._finish(joined)

    def _apply(self, joined: Joined) -> None:
        """Bring a clean merge into the index, and files and manifests into the worktree."""
        from theta.porcelain import octopus

        text = self.args.message() or octopus.message(self.session, self.names, self.heads)
        squash, how, checked = self.args.has("--squash"), self.decision.how, self.checked
        octopus.apply(self.session, joined, self.heads, text, how, self.base, squash=squash, checked=checked)

    def _finish(self, joined: Joined, drafts: Drafts | None = None) -> int:
        """Write the checkpoints of a merge that was applied, tell of it and commit it."""
        from theta.cli import conflicts
        from theta.porcelain import resolving

        fresh = again(self.session)
        with console.progress("writing checkpoints") as progress:
            resolving.fill(fresh, progress, drafts)
        conflicts.report(joined.merged)
        return self._end(0, not self.args.has("--squash"))

    def _refuse_unrelated(self) -> None:
        if not self.args.has("--allow-unrelated-histories"):
            raise ThetaError(
                "refusing to merge unrelated histories",
                hint="--allow-unrelated-histories does it all the same",
            )

    def _end(self, code: int, merging_now: bool) -> int:
        if code == 0 and merging_now and not self.no_commit and not self.args.has("--no-commit"):
            return _conclude(self.session, self.args.to_commit)
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


def _go_on(session: Session, decision: Decision, no_commit: bool) -> int:
    from theta.porcelain import operations
    from theta.porcelain.settle import refresh

    now = operations.current(session.repo)
    if not now.name:
        raise ThetaError("there is no merge in progress (MERGE_HEAD missing)")
    refresh(session)
    code = settle(session, decision, quiet=now.name == "merge")
    if code or no_commit or now.name != "merge":
        return code
    return _conclude(session, ["--no-edit"])


def _conclude(session: Session, options: list[str]) -> int:
    from theta.cli.commit import report_summary
    from theta.porcelain import answering, committing, recipes, recording

    before = session.repo.head()
    committing.check_identity(session)
    recording.tell(session)
    recipes.conclude(session)
    code = session.repo.git().show("commit", "--quiet", *options)
    summary = committing.finish(session, before)
    if code == 0 and summary is not None:
        answering.forget(session)
        recording.forget(session)
        report_summary(summary, as_json=False)
    return code
