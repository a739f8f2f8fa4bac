"""The limits of known hosts: bytes of one push, and of a repository."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_MB: Final = 1000**2
_GB: Final = 1000**3
DEFAULT: Final = 2 << 30
"""The bytes of one push where nothing else is known: the least limit of the hosts below."""


@dataclass(frozen=True)
class Host:
    """A host and its limits in bytes, None when there is none.

    Attributes:
        name: its name for users.
        domains: the ends of its host names.
        push: the most that one push may have.
        holds: the most that a repository may have.
        advised: the most that a repository should have.
        source: the page of the host that says so.
    """

    name: str
    domains: tuple[str, ...]
    push: int | None
    holds: int | None
    advised: int | None
    source: str


HOSTS: Final = (
    Host(
        "GitHub",
        ("github.com",),
        2 << 30,
        None,
        10 * _GB,
        "https://docs.github.com/en/repositories/creating-and-managing-repositories/repository-limits",
    ),
    Host(
        "Bitbucket Cloud",
        ("bitbucket.org",),
        3500 * _MB,
        4 * _GB,
        2 * _GB,
        "https://support.atlassian.com/bitbucket-cloud/docs/"
        "what-kind-of-limits-do-you-have-on-repositoryfile-size/",
    ),
    Host(
        "Azure Repos",
        ("dev.azure.com", "visualstudio.com"),
        5 * _GB,
        250 * _GB,
        10 * _GB,
        "https://learn.microsoft.com/en-us/azure/devops/repos/git/limits",
    ),
    Host("GitLab.com", ("gitlab.com",), 5 * _GB, 10 * _GB, None, "https://docs.gitlab.com/user/gitlab_com/"),
)

_NAME: Final = re.compile(r"(?:[a-z][a-z0-9+.-]*://)?(?:[^@/\s]*@)?([^:/\s]+)[:/]")


def of_url(url: str) -> Host | None:
    """Return the known host of a URL (``https://HOST/...``, ``USER@HOST:...``); None for any other."""
    found = _NAME.match(url.lower())
    name = found[1] if found else ""
    fits = (host for host in HOSTS for end in host.domains if name == end or name.endswith(f".{end}"))
    return next(fits, None)
