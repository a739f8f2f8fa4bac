"""The entries of ``git difftool --tool=theta`` and ``git mergetool --tool=theta`` in git's configuration.

git evaluates a ``cmd`` in a shell at the top of the worktree, with the variables LOCAL, REMOTE and MERGED
(git-difftool(1), git-mergetool(1)).
"""

from __future__ import annotations

from typing import Final

from theta.porcelain.setup import launcher

_EACH: Final = (
    'for f; do n=${f#"$d/"};'
    ' printf "100644 %s\\t%s\\0" "$(git hash-object -w --path="$n" -- "$f")" "$n"; done'
)
_FOLDER: Final = (
    "theta_folder() { i=$(mktemp -d) || return; d=${1%/}; GIT_INDEX_FILE=$i/index; export d GIT_INDEX_FILE;"
    f' find "$d" ! -type d ! -path "$d/.theta/*" -exec sh -c \'{_EACH}\' sh {{}} +'
    ' | git update-index -z --index-info && git write-tree; rm -r "$i"; }'
)
"""A shell function that stores a folder of ``git difftool --dir-diff``; it has to run in a subshell."""
_TREE: Final = (
    'theta_tree() { if [ -d "$1" ]; then theta_folder "$1"; return; fi;'
    ' if [ "$1" = /dev/null ]; then printf ""; else'
    ' printf "100644 blob %s\\t%s\\n" "$(git hash-object -w --path="$MERGED" -- "$1")" "${MERGED##*/}"; fi'
    " | git mktree; }"
)
"""A shell function that stores a file as git would stage it, and prints the tree of it alone; or a folder."""
_START: Final = (
    f'theta_start() {{ l="{launcher.FIND}"; if [ -r "$l" ]; then sh "$l" "$@"; else theta "$@"; fi; }}'
)
"""A shell function that starts theta: that of this repository, else the one on PATH."""
_ALONE: Final = "unset GIT_EXTERNAL_DIFF GIT_DIFF_TOOL GIT_DIFFTOOL_NO_PROMPT"
"""Else the git that theta runs would start the difftool again."""
_DIFF: Final = (
    f"case $MERGED in .theta/*) ;; *) {_ALONE}; {_FOLDER}; {_TREE}; {_START};"
    ' theta_start diff --stats "$(theta_tree "$LOCAL")" "$(theta_tree "$REMOTE")" ;; esac'
)
_MERGE: Final = (
    f'{_START}; s=$(git config mergetool.theta.strategy); theta_start resolve ${{s:+-X "$s"}} -- "$MERGED"'
)

ENTRIES: Final = {
    "difftool.theta.cmd": _DIFF,
    "mergetool.theta.cmd": _MERGE,
    "mergetool.theta.trustExitCode": "true",
}
"""Keys and values of git's configuration.  ``mergetool.theta.strategy`` is left to the user."""
