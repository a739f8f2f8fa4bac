"""The command line: ``python -m bench.trust``."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from pathlib import Path

from bench.trust import campaigns, page, runner, signing, table, worker
from bench.trust.outcome import Outcome


def _known(name: str) -> str:
    if name not in campaigns.NAMES:
        raise argparse.ArgumentTypeError(f"no campaign {name!r}; there are {', '.join(campaigns.NAMES)}")
    return name


def _names(text: str) -> list[str]:
    return [_known(name) for name in text.split(",") if name]


def _case(text: str) -> tuple[str, list[int]]:
    name, *numbers = text.split(":")
    if len(numbers) not in (1, 2):
        raise argparse.ArgumentTypeError("the form is NAME:SEED or NAME:SEED:CASE")
    return _known(name), [int(number) for number in numbers]


def _mending(text: str) -> tuple[str, str]:
    name, _, words = text.partition(":")
    return _known(name), words


def parser() -> argparse.ArgumentParser:
    """Return the options."""
    made = argparse.ArgumentParser(prog="python -m bench.trust", description=__doc__)
    made.add_argument("--hours", type=float, default=1.0, help="for how long")
    made.add_argument("--seed", type=int, default=1, help="the first seed; those in the table are left out")
    made.add_argument(
        "--only", type=_names, default=list(campaigns.NAMES), help="campaigns, with commas between"
    )
    many = 2 * (os.cpu_count() or 1)  # each waits for others half of its time
    made.add_argument("--jobs", type=int, default=many, help="processes side by side")
    made.add_argument("--table", type=Path, default=table.FILE, help="the table that is added to")
    made.add_argument(
        "--again", type=_case, metavar="NAME:SEED[:CASE]", help="run one seed, or one case of it, alone"
    )
    made.add_argument(
        "--page", action="store_true", help="write the tables of docs/trust.md, and run nothing"
    )
    made.add_argument(
        "--join", type=Path, metavar="TABLE", help="add the rows of another table, and run nothing"
    )
    made.add_argument(
        "--mended",
        type=_mending,
        metavar="NAME:TEXT",
        help="say what mended the faults of a campaign, and run nothing",
    )
    made.add_argument("--sign", action="store_true", help="sign the table with git's key, and run nothing")
    made.add_argument("--verify", action="store_true", help="check digest and signature, and run nothing")
    return made


_SHOWN = 5
"""Faults of one seed that are printed."""


class Teller:
    """Adds outcomes to the table and prints the faults among them."""

    def __init__(self, file: Path) -> None:
        self.file, self.faults = file, 0

    def tell(self, campaign: str, found: Outcome) -> float:
        """Count an outcome; return how much of its goal the campaign has reached."""
        rows = table.read(self.file)
        table.row_of(rows, campaign).add(found)
        table.write(rows, self.file)
        for kind, case, text in found.faults[:_SHOWN]:
            command = shlex.join(runner.again(campaign, found.seed, case))
            print(f"{kind}: {campaign}, seed {found.seed}, case {case}: {text}\n    {command}", flush=True)
        self.faults += len(found.faults)
        return table.share(rows, campaign)


def run(options: argparse.Namespace) -> int:
    """Run campaigns side by side."""
    rows = table.read(options.table)
    seeds = {name: table.next_seed(rows, name, options.seed) for name in options.only}
    reached = {name: table.share(rows, name) for name in options.only}
    teller = Teller(options.table)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        runner.Runner(seeds, reached, teller.tell).run(time.monotonic() + 3600 * options.hours, options.jobs)
    except KeyboardInterrupt:
        print("ended", file=sys.stderr)
    print(page.rows(table.read(options.table)))
    return int(teller.faults > 0)


def _mend(file: Path, campaign: str, text: str) -> None:
    """Say of all rows of a campaign that have faults what mended them."""
    rows = table.read(file)
    for row in rows:
        if row.campaign == campaign and any(row.faults.values()) and not row.mended:
            row.mended = text
    table.write(rows, file)


def main(words: list[str]) -> int:
    """Do what the command line asks for; 1 for a fault."""
    options = parser().parse_args(words)
    if options.again:
        name, (seed, *case) = options.again
        worker.main(name, seed, 1, *case)
    elif options.join:
        table.write(table.joined(table.read(options.table), table.read(options.join)), options.table)
    elif options.mended:
        _mend(options.table, *options.mended)
    elif options.page:
        page.write(table.read(options.table))
    elif options.sign:
        signing.sign(options.table)
    elif options.verify:
        return signing.verify(options.table)
    else:
        return run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
