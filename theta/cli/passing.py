"""Commands that also take git's options.

Most lines have no option of theta's own: then the command runs without typer, whose import takes as long as
all the rest of a start.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from theta.cli import args as arguments

F = TypeVar("F", bound=Callable[..., int])

_SETTINGS: Final[dict[str, Any]] = {
    "help_option_names": [],
    "allow_extra_args": True,
    "ignore_unknown_options": True,
}


class Passing:
    """A command that hands options on to git; its function takes an :class:`args.Given`, and theta's options.

    ``own`` are theta's options: ``--json``, or ``--tensor=`` for one that takes a value.  None of a command
    most of whose lines have one: typer reads all of them.
    """

    def __init__(self, own: Sequence[str] | None = ()) -> None:
        self._function: Callable[..., int] | None = None
        self.own = None if own is None else {name.rstrip("="): name.endswith("=") for name in own}

    def command(self, function: F) -> F:
        """Let ``function`` be what runs."""
        self._function = function
        return function

    @property
    def function(self) -> Callable[..., int]:
        """The function that runs the command."""
        if self._function is None:
            raise TypeError("a command without a function")
        return self._function

    def runs_alone(self, args: Sequence[str]) -> bool:
        """Return whether ``args`` have no option of theta's own, and do not ask for help."""
        if self.own is None or list(args) == ["-h"] or list(args[:1]) == ["--help"]:
            return False
        return not any(arguments.is_own(arg, self.own) for arg in args)

    def of_typer(self, name: str) -> Any:
        """Return the same command for typer, which reads theta's options."""
        import typer

        function = self.function

        def callback(context: typer.Context, **options: Any) -> int:
            return function(arguments.Given(name, arguments.plain(context.args)), **options)

        _declare(callback, function, typer.Context)
        app = typer.Typer(add_completion=False)
        app.command(context_settings=_SETTINGS)(callback)
        return typer.main.get_command(app)


def _declare(callback: Callable[..., int], function: Callable[..., int], context: type) -> None:
    """Let ``callback`` have the options and the text of ``function``."""
    import inspect

    signature = inspect.signature(function, eval_str=True)
    options = list(signature.parameters.values())[1:]
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=context)
    hints: Mapping[str, Any] = {one.name: one.annotation for one in (first, *options)}
    callback.__doc__ = function.__doc__
    callback.__annotations__ = {**hints, "return": int}
    callback.__signature__ = signature.replace(parameters=[first, *options])  # type: ignore[attr-defined]
