"""`make fuzz`: a million hostile inputs for the decoders, one process after the other, and one table."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from redrawn import redrawn
from rich.console import Console
from rich.table import Table

from fuzz.judge import GREEDY_BYTES, SLOW_S
from fuzz.targets import TARGETS

COLUMNS = ("inputs", "seconds", "inputs/s", "crashes", "slowest, ms", "memory, MiB")
PATIENCE_S = 120.0
"""Without a word for so long a process hangs."""

Row = dict[str, Any]


def table(rows: dict[str, Row]) -> Table:
    """What is known by now, and the sums."""
    shown = Table("decoder", *COLUMNS)
    for column in shown.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        shown.add_row(name, *cells(row))
    total = {
        "inputs": sum(row["inputs"] for row in rows.values()),
        "seconds": sum(row["seconds"] for row in rows.values()),
        "slowest_s": max((row["slowest_s"] for row in rows.values()), default=0.0),
        "grown": max((row["grown"] for row in rows.values()), default=0),
        "faults": [fault for row in rows.values() for fault in row["faults"]],
    }
    shown.add_section()
    shown.add_row("all", *cells(total))
    return shown


def cells(row: Row) -> list[str]:
    """A row of the table."""
    return [
        f"{row['inputs']:,}",
        f"{row['seconds']:.1f}",
        f"{row['inputs'] / max(row['seconds'], 1e-9):,.0f}",
        str(len(row["faults"])),
        f"{1000 * row['slowest_s']:.1f}",
        f"{row['grown'] / 2**20:.0f}",
    ]


def hunt(name: str, inputs: int, tell: Callable[[Row], None], *, grow: bool) -> Row:
    """Run one target in a process of its own."""
    row: Row = {"inputs": 0, "seconds": 0.0, "slowest_s": 0.0, "grown": 0, "faults": {}}
    command = [sys.executable, "-m", "fuzz.hunt", name, str(inputs), *(["--grow"] if grow else [])]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("{"):
                row = json.loads(line)
                tell(row)
        code = process.wait(PATIENCE_S)
        if code or row["inputs"] < inputs:
            log.seek(0)
            row["faults"][f"the process ended with {code}"] = log.read()[-2000:]
    return row


def main() -> int:
    """Run every target; 1 when one of them found something."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="inputs in all, 1000000 by default")
    parser.add_argument("--only", default="", help="decoders whose name has these words")
    parser.add_argument("--grow", action="store_true", help="keep an input for each new thing a decoder says")
    asked = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 110)
    if find_spec("atheris") is None:
        console.print(
            "atheris is not installed (there are wheels for Linux on x86-64 alone): hypothesis makes the "
            "inputs, without looking at what they reach in the code"
        )
    chosen = {name: target for name, target in TARGETS.items() if asked.only in name}
    shares = sum(target.share for target in chosen.values())
    rows: dict[str, Row] = {}
    began = time.monotonic()
    with redrawn(console) as live:
        live.update(table(rows), refresh=console.is_terminal)

        def tell(name: str, row: Row) -> None:
            rows[name] = row
            live.update(table(rows), refresh=console.is_terminal)

        for name, target in chosen.items():
            inputs = -int(-asked.inputs * target.share // shares)
            tell(name, hunt(name, inputs, partial(tell, name), grow=asked.grow))
        live.refresh()
    for name, row in rows.items():
        for kind, where in row["faults"].items():
            console.print(f"[red]{name}[/]: {kind}\n    {where}", highlight=False)
    console.print(
        f"{time.monotonic() - began:.0f} s; a crash is any other error than the decoder's own, more "
        f"than {SLOW_S:g} s of processor time for an input, or more than {GREEDY_BYTES >> 20} MiB"
    )
    return int(any(row["faults"] for row in rows.values()))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    sys.exit(main())
