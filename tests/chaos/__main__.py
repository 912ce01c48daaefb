"""`make chaos`: strike a running pipeline in every way there is and count its frames."""

import argparse
import sys
import time

from redrawn import redrawn
from rich.console import Console
from rich.table import Table

from chaos.faults import FAULTS, Outcome, run

COLUMNS = ("admitted", "answered", "failed", "refused", "lost", "doubled", "repeated", "again")


def table(outcomes: list[Outcome]) -> Table:
    """What came of each row so far."""
    shown = Table("fault", *COLUMNS, "silence, s", "took, s", "")
    for column in shown.columns[1:-1]:
        column.justify = "right"
    for outcome in outcomes:
        books = outcome.books
        shown.add_row(
            outcome.fault.name,
            *(
                str(number)
                for number in (
                    len(books.acknowledged) - len(books.refused),
                    books.answered,
                    books.failed.total(),
                    len(books.refused),
                    len(books.lost),
                    outcome.doubled,
                    books.repeated,
                    books.again,
                    f"{books.silence_s:.2f}",
                    f"{outcome.seconds:.0f}",
                )
            ),
            "[red]failed" if outcome.wrong else "[green]held",
        )
    return shown


def main() -> int:
    """Run every row; 1 when one failed."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--frames", type=int, default=10_000, help="frames a row, 10000 by default")
    parser.add_argument("--only", default="", help="rows whose name has these words")
    asked = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    with redrawn(console) as live:
        live.update(table(outcomes), refresh=console.is_terminal)
        for fault in FAULTS:
            if asked.only in fault.name:
                outcomes.append(run(fault, asked.frames))
                live.update(table(outcomes), refresh=True)
    for outcome in outcomes:
        for note in outcome.notes:
            console.print(f"{outcome.fault.name}: {note}", markup=False)
        for fault in outcome.wrong:
            console.print(f"{outcome.fault.name}: {fault}", markup=False, style="red")
    console.print(f"{len(outcomes)} rows of {asked.frames} frames in {time.monotonic() - began:.0f} s")
    return int(any(outcome.wrong for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
