"""The text of the shell program that git's filter and hooks run to start theta.

Environments and repositories are moved, deleted and rebuilt.  So this program is the only place with a
path of theta, and it also handles a missing theta.
"""

from __future__ import annotations

from typing import Final

NAME: Final = "theta-launcher"


def find(name: str) -> str:
    """Return the shell expression for ``info/NAME`` of the repository that a program of git runs in."""
    return (
        f'$(d=${{GIT_DIR:-.git}}; [ -r "$d/info/{name}" ] || '
        f'd=$(unset GIT_INTERNAL_SUPER_PREFIX; git rev-parse --git-common-dir); printf "%s" "$d")/info/{name}'
    )


FIND: Final = find(NAME)
"""The shell expression for the launcher."""
# git sets that variable while it moves a submodule, and rev-parse fails with it.
COMMAND: Final = f'sh "{FIND}"'
"""The shell command that starts theta in a worktree."""
FILTER: Final = f'l="{FIND}"; [ -r "$l" ] || exec theta filter-process; exec sh "$l" filter-process'
"""The filter command of one repository; git runs it in a shell at the top of a worktree."""
_USERS: Final = '"${XDG_DATA_HOME:-$HOME/.local/share}/theta/' + NAME + '"'
GLOBAL_FILTER: Final = f'l={_USERS}; [ -r "$l" ] || exec theta filter-process; exec sh "$l" filter-process'
"""The filter command of a user, without paths of this machine so that dotfiles can be shared."""

# `-P`: a directory `theta/` in the repository must not be imported as the package.
_START: Final = """\
#!/bin/sh
# Starts theta for git's filter and hooks. 'theta install' writes this file anew.
unset GIT_INTERNAL_SUPER_PREFIX
python=@PYTHON@
package=@PACKAGE@
if [ -x "$python" ]; then
	[ -e "$package/__main__.py" ] && exec "$python" -P -m theta "$@"
	"$python" -P -c 'import theta.cli' 2>/dev/null && exec "$python" -P -m theta "$@"
fi
case $(theta --version 2>/dev/null) in
"theta "[0-9]*) exec theta "$@" ;;
esac
"""
_HOOKS: Final = """\
lost="the theta of $python is gone, and there is none on PATH"
repair="run 'theta install' of another environment"

say() { printf 'theta: %s\\n' "$*" >&2; }

if [ "$1" = hook ]; then
	case $2 in
	pre-commit | pre-merge-commit)
		git diff --cached --quiet -- .theta ':(top,attr:filter=theta)' && exit 0 ;;
	pre-push) ;;
	*) exit 0 ;;
	esac
	say "$lost; $repair, or go on without the check of checkpoints by --no-verify"
	exit 1
fi
[ "$1" = filter-process ] || { say "$lost; $repair"; exit 127; }
"""
# gitprotocol-common(5), and "Long Running Filter Process" in gitattributes(5).
_FILTER: Final = """\
# Without theta, a manifest passes through as it is, and anything else is not taken.  Nothing here reads
# manifests: what is staged (git holds the lock of the index) must be one that the repository has.
repair="$repair, or 'git config --remove-section filter.theta' to do without"
t=$(mktemp -d) || exit 1
trap 'rm -rf "$t"' EXIT

take() { # N: copy the next N bytes; a pipe may give them in parts
	left=$1
	while [ "$left" -gt 0 ]; do
		dd bs="$left" count=1 2>/dev/null >"$t/part"
		got=$(wc -c <"$t/part")
		[ "$got" -gt 0 ] || return 1
		cat "$t/part"
		left=$((left - got))
	done
}

packet() { # read a packet into $t/packet; fails at the end of a list
	head=$(take 4) || exit 0
	[ "$head" != 0000 ] && take $((0x$head - 4)) >"$t/packet"
}

skip() { while packet; do :; done; }

is_manifest() {
	[ "$(dd if="$t/packet" bs=17 count=1 2>/dev/null | tr -d '\\000')" = 'theta checkpoint ' ]
}

is_staged() { [ -e "${GIT_INDEX_FILE:-$(git rev-parse --git-path index)}.lock" ]; }

is_known() { id=$(git hash-object --stdin <"$t/text") && git cat-file -e "$id" 2>/dev/null; }

refuse() {
	say "$path cannot be stored: $lost; $repair"
	exit 1
}

skip
printf '0016git-filter-server\\n000eversion=2\\n0000'
skip
printf '0015capability=clean\\n0016capability=smudge\\n0000'
said=
while :; do
	command='' path=''
	while packet; do
		pair=$(cat "$t/packet")
		case $pair in
		command=*) command=${pair#command=} ;;
		pathname=*) path=${pair#pathname=} ;;
		esac
	done
	: >"$t/content" # as packets, to be sent back
	: >"$t/text"
	first=yes
	while packet; do
		if [ "$first" = yes ]; then
			first=no
			if is_manifest; then
				[ "$command" = smudge ] && [ -z "$said" ] && said=yes &&
					say "$lost; checkpoints are left as manifests; $repair"
			else
				[ "$command" = clean ] && refuse
			fi
		fi
		printf '%s' "$head" >>"$t/content"
		cat "$t/packet" >>"$t/content"
		cat "$t/packet" >>"$t/text"
	done
	[ "$command$first" = cleanyes ] && refuse
	[ "$command" = clean ] && is_staged && { is_known || refuse; }
	printf '0013status=success\\n0000'
	cat "$t/content"
	printf '00000000'
done
"""
TEXT: Final = _START + _HOOKS + _FILTER
"""The program; ``@PYTHON@`` stands for the interpreter, ``@PACKAGE@`` for the directory of theta."""
