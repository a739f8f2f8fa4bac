"""The graph of ``theta lineage``, as text and as SVG."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Final

from theta.git.quoting import split_lines, visible_lines

if TYPE_CHECKING:
    from theta.porcelain.lineage.tracing import Lineage, VersionNode
    from theta.porcelain.workspace.session import Session

_ID: Final = 10
_NAMED: Final = 6
"""Origins that a line names."""
_ROW: Final = 34
_LANE: Final = 18
_COLOURS: Final = ("#1f6feb", "#bf8700", "#1a7f37", "#8250df", "#cf222e", "#0969da")


def text(session: Session, found: Lineage) -> Iterator[str]:
    """Yield the lines of git's graph of these commits, with what became of the checkpoint in each."""
    words = ("log", "--graph", "--color=never", "--format=%x01%H", *found.arguments)
    for line in split_lines(session.repo.git().run(*words).text):
        graph, _, oid = line.partition("\x01")
        node = found.nodes.get(oid)
        if node is not None:
            yield graph + told(node, found.path)
        elif not oid:
            yield graph.rstrip()


def told(node: VersionNode, path: str) -> str:
    """Return one line on a version."""
    names = f" ({', '.join(node.names)})" if node.names else ""
    detail = _detail(node)
    where = f" [{node.path}]" if node.path != path else ""
    return f"{node.commit[:_ID]}{names} {node.deed}{f': {detail}' if detail else ''}{where} - {node.subject}"


def _detail(node: VersionNode) -> str:
    """Return more about a version, with the origins that the graph does not show."""
    apart = [
        one.commit[:_ID] if one.path == node.path else f"{one.path} of {one.commit[:_ID]}"
        for one in node.apart
    ]
    if len(apart) > _NAMED:
        apart[_NAMED - 1 :] = [f"{len(apart) - _NAMED + 1} more"]
    return " ".join(filter(None, [node.detail, f"from {', '.join(apart)}" if apart else ""]))


def svg(found: Lineage) -> str:
    """Return a picture of the graph: a row for each version, the newest first, and a lane for each branch."""
    places = _places(found)
    lanes = 1 + max((lane for lane, _ in places.values()), default=0)
    width, height = 900 + _LANE * lanes, _ROW * (len(places) + 1)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" role="img"'
        f' font-family="system-ui, sans-serif" font-size="13"><title>{escape(found.path)}: lineage</title>',
        "<style>text{fill:#1f2328}.d{font-weight:600}",
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}}</style>",
    ]
    for node in found.nodes.values():
        drawn += _edges(node, places)
    drawn += [_dot(node, places, _LANE * (lanes + 1)) for node in found.nodes.values()]
    return visible_lines("\n".join([*drawn, "</svg>", ""]))


def _places(found: Lineage) -> dict[str, tuple[int, int]]:
    """Return commit -> (lane, row); a first parent stays in the lane of its child."""
    waiting: list[str | None] = []
    places: dict[str, tuple[int, int]] = {}
    for row, node in enumerate(found.nodes.values()):
        lane = waiting.index(node.commit) if node.commit in waiting else _free(waiting)
        waiting[:] = [None if one == node.commit else one for one in waiting]
        places[node.commit] = (lane, row)
        for origin in node.origins:
            if origin.commit not in waiting and origin.commit not in places and origin.commit in found.nodes:
                waiting[lane if waiting[lane] is None else _free(waiting)] = origin.commit
    return places


def _free(waiting: list[str | None]) -> int:
    if None not in waiting:
        waiting.append(None)
    return waiting.index(None)


def _at(place: tuple[int, int]) -> tuple[int, int]:
    return _LANE * (place[0] + 1), _ROW * place[1] + _ROW // 2 + 6


def _edges(node: VersionNode, places: dict[str, tuple[int, int]]) -> list[str]:
    x, y = _at(places[node.commit])
    colour = _COLOURS[places[node.commit][0] % len(_COLOURS)]
    dash = ' stroke-dasharray="4 3"'
    ends = [(one.commit, _at(places[one.commit])) for one in node.origins if one.commit in places]
    return [
        f'<path d="M{x},{y} C{x},{y + _ROW // 2} {to_x},{to_y - _ROW // 2} {to_x},{to_y}"'
        f' fill="none" stroke="{colour}" stroke-width="2"{"" if commit in node.parents else dash}/>'
        for commit, (to_x, to_y) in ends
    ]


def _dot(node: VersionNode, places: dict[str, tuple[int, int]], left: int) -> str:
    x, y = _at(places[node.commit])
    colour = _COLOURS[places[node.commit][0] % len(_COLOURS)]
    names = f" ({', '.join(node.names)})" if node.names else ""
    detail = f": {_detail(node)}" if _detail(node) else ""
    return (
        f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/><text x="{left}" y="{y + 4}">'
        f'{node.commit[:_ID]}{escape(names)} <tspan class="d">{escape(node.deed)}</tspan>'
        f"{escape(detail)} - {escape(node.subject)}</text>"
    )
