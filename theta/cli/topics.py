"""``theta help TOPIC``: the packaged manuals."""

from __future__ import annotations

from importlib import resources

from theta.cli import console
from theta.errors import NotFoundError


def show_topic(topic: str) -> int:
    """Print ``theta/docs/TOPIC.md``."""
    place = resources.files("theta") / "docs" / f"{topic}.md"
    if not topic.replace("-", "_").isidentifier() or not place.is_file():
        raise NotFoundError(f"there is no command or topic '{topic}'", hint="theta --help lists the commands")
    console.out(*place.read_text(encoding="utf-8").rstrip().split("\n"))
    return 0
