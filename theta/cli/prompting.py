"""Asking for a decision, tensor by tensor: quick to type, and every answer can be taken back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from theta.cli import console
from theta.cli.screen import rich_console
from theta.errors import UsageError
from theta.merging.states import Conflict
from theta.merging.strategies import Strategy, describe, names, parse
from theta.merging.strategies.parameter_text import read
from theta.porcelain.merge.answers import Answer, Answers, UndoneError

if TYPE_CHECKING:
    from rich.console import Console

    from theta.merging.strategies.parameters import Parameter
    from theta.porcelain.workspace.session import Session

MENU: Final = {"avg": "average", "tu": "ours", "tt": "theirs", "to": "base"}
"""The keys of the menu; any strategy goes by its name too."""

_HELP: Final = """\
  avg 0.3       average, ours weighs 0.3; avg alone: both alike
  tu  tt  to    take us, take theirs, take the original from before both
  NAME          any strategy, asked for its parameters (NAME: takes defaults)
  NAME:k=v,k=v  the same with parameters, such as ties:density=0.2
  ANSWER !      also for all remaining tensors; @GLOB: also for matching names
  u undo   c show the tensor again   q stop: answers are kept, the rest is open
  ? NAME        what a strategy does and its parameters; ?? lists all of them"""
"""Short enough to leave the tensor on a screen of 24 lines of 80 columns."""


_CAN: Final = "tu, tt and to take a side, which always applies"

_AT_A_PARAMETER: Final = "Enter takes the default; u goes back, q stops, c shows the tensor again"


class Prompt:
    """Settles conflicts by asking.

    Args:
        session: the repository.
        answers: what was answered so far.
        screen: where to draw; the terminal.
        read: asks for a line; the keyboard, with completion and history.
    """

    def __init__(
        self,
        session: Session,
        answers: Answers,
        screen: Console | None = None,
        read: Callable[[str], str] | None = None,
    ) -> None:
        self._session, self._answers = session, answers
        self._screen = screen or rich_console(in_colours=console.palette().on)
        self._read = read or _line
        self._stopped = False

    def decide(self, conflict: Conflict) -> Strategy | None:
        """Ask the user to decide; return None once the user has stopped; raises :class:`UndoneError`."""
        if self._stopped:
            return None
        if (answered := self._answers.find(conflict)) is not None:
            return answered
        console.clear_line()
        self._show(conflict)
        return self._answered(conflict)

    def _answered(self, conflict: Conflict) -> Strategy | None:
        while True:
            try:
                words = self._read("theta> ").split()
                found = self._obey(words, conflict)
            except UsageError as error:
                self._say(str(error), error.hint)
                continue
            except (EOFError, KeyboardInterrupt):
                self._screen.print()
                self._stopped = True
                return None
            if found is not None or self._stopped:
                return found

    def _obey(self, words: list[str], conflict: Conflict) -> Strategy | None:
        """Do what ``words`` say; return a strategy, or None to ask on."""
        match words:
            case ["q" | "quit"]:
                self._stopped = True
            case ["u" | "undo"]:
                self._undo()
            case ["c"]:
                self._show(conflict)
            case ["?" | "h" | "help"]:
                self._screen.print(_HELP, markup=False)
            case ["??"]:
                self._describe(conflict)
                self._show(conflict)
            case ["?" | "h" | "help", *wanted]:
                self._describe(conflict, [parse_name(name) for name in wanted])
            case []:
                raise UsageError("answer avg, tu, tt, to, a strategy or q; ? tells more")
            case _:
                return self._take(words, conflict)
        return None

    def _take(self, words: list[str], conflict: Conflict) -> Strategy | None:
        words, glob = _spread(words)
        strategy = self._strategy(words, conflict)
        if strategy is None:
            return None
        _check(strategy, conflict)
        self._answers.given.append(Answer(conflict, strategy, glob))
        self._answers.keep()  # whatever ends the program now
        return strategy

    def _strategy(self, words: list[str], conflict: Conflict) -> Strategy | None:
        """Return the strategy that ``words`` name; None when its parameters were asked for and not given."""
        name, *rest = words
        if ":" in name:
            return parse(" ".join(words).removesuffix(":"))
        if rest or parse_name(name) in MENU.values():
            return read_answer(words)
        return self._with_parameters(Strategy(parse_name(name)), conflict)

    def _with_parameters(self, strategy: Strategy, conflict: Conflict) -> Strategy | None:
        """Ask for each parameter of ``strategy``; return None after q, or u at the first."""
        _check(strategy, conflict)
        asked, given = describe(strategy.name).parameters, dict[str, str]()
        while len(given) < len(asked):
            parameter = asked[len(given)]
            match self._typed(parameter):
                case "q" | "quit":
                    self._stopped = True
                    return None
                case "u" | "undo":
                    if not given:
                        return None
                    given.popitem()
                case "c":
                    self._show(conflict)
                case "?" | "h" | "help":
                    self._say(f"{parameter.name}: {parameter.wanted}", _AT_A_PARAMETER)
                case text:
                    try:
                        _check_parameter(strategy, parameter, text, conflict)
                    except UsageError as error:
                        self._say(str(error), error.hint)
                        continue
                    given[parameter.name] = text
        text = ",".join(f"{key}={value}" for key, value in given.items() if value)
        return parse(f"{strategy.name}:{text}".removesuffix(":"))

    def _typed(self, parameter: Parameter) -> str:
        default = "" if parameter.default is None else f" [{parameter.default}]"
        text = self._read(f"  {parameter.name}{default} ({parameter.doc}): ").strip()
        return f"[{text}]" if "," in text and text[0] not in "[{" else text

    def _undo(self) -> None:
        if not self._answers.given:
            raise UsageError("there is nothing to undo")
        self._answers.given.pop()
        self._answers.keep()
        raise UndoneError

    # -- the screen ----------------------------------------------------------------------

    def _say(self, *lines: str) -> None:
        for line in filter(None, lines):
            self._screen.print(line, markup=False, style="yellow")

    def _show(self, conflict: Conflict) -> None:
        from theta.cli import panels

        place = f"{len(self._answers.given) + 1} of {self._total}" if self._total else ""
        self._screen.print(panels.panel(self._session.objects, conflict, place))

    @cached_property
    def _total(self) -> int:
        """How many conflicts the index holds, about: several branches are joined outside of it."""
        from theta.porcelain.merge import resolving
        from theta.porcelain.workspace.session import Session

        return sum(map(len, resolving.conflicts(Session.here(self._session.repo.worktree)).values()))

    def _describe(self, conflict: Conflict, wanted: Sequence[str] = ()) -> None:
        from theta.cli import panels

        self._screen.print(panels.strategies(conflict, wanted))


def _check(strategy: Strategy, conflict: Conflict) -> None:
    """Raise :class:`UsageError` unless ``strategy``, as far as it is known, settles ``conflict``."""
    reason = strategy.why_not(conflict)
    if reason is not None:
        raise UsageError(f"{strategy.name} does not apply here: {reason}", hint=_CAN)
    if strategy.given:
        strategy.resolve(conflict.name, 0.5, len(conflict.sides))


def _check_parameter(strategy: Strategy, parameter: Parameter, text: str, conflict: Conflict) -> None:
    """Raise :class:`UsageError` unless ``text`` is a value of ``parameter``; empty is the default."""
    if not text:
        if parameter.required:
            raise UsageError(f"{strategy.name} needs {parameter.name}: {parameter.wanted}")
        return
    found = read(f"{parameter.name}={text}")
    if len(found) > 1:
        raise UsageError(f"{parameter.name} is one value, or a list in brackets")
    value = found[parameter.name]
    parameter.check(value)
    parameter.resolve(value, conflict.name, 0.5, len(conflict.sides))
    if reason := Strategy(strategy.name, ((parameter.name, value),)).why_not(conflict):
        raise UsageError(reason)


def _spread(words: list[str]) -> tuple[list[str], str | None]:
    """Return the answer without ``!`` or ``@GLOB``, and the glob that it holds for."""
    last = words[-1]
    if last.endswith("!"):
        kept = [*words[:-1], *filter(None, [last[:-1]])]
        return _some(kept), "*"
    if last.startswith("@"):
        return _some(words[:-1]), last[1:] or "*"
    if len(words) > 1 and words[-2] == "@":
        return _some(words[:-2]), last
    return words, None


def _some(words: list[str]) -> list[str]:
    if not words:
        raise UsageError("name a strategy before ! or @GLOB, such as 'avg !'")
    return words


def read_answer(words: list[str]) -> Strategy:
    """Parse ``avg``, ``avg 0.3``, ``ties density=0.2``; raises :class:`UsageError`."""
    name, *rest = words
    if rest and "=" not in rest[0]:
        rest[0] = f"{'alpha' if parse_name(name) == 'average' else 't'}={rest[0]}"
    return parse(":".join(filter(None, [parse_name(name), ",".join(rest)])))


def parse_name(name: str) -> str:
    """Return the strategy that a key of the menu, or a name, means."""
    return MENU.get(name) or parse(name).name


def _line(question: str) -> str:
    """Read a line from the terminal, with completion and history if readline is installed."""
    try:
        import readline
    except ImportError:
        return console.ask(question)
    known = sorted({*MENU, *names(), "q", "u", "c", "?"})
    readline.set_completer_delims(" ")
    readline.set_completer(lambda text, at: ([word for word in known if word.startswith(text)] + [None])[at])
    readline.parse_and_bind("tab: complete")
    return console.ask(question)
