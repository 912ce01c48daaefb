"""Results as files and tables: CSV for machines, Markdown for documents, rich for people who wait."""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R")
D = TypeVar("D", bound="DataclassInstance")

Cells = list[dict[str, str]]
"""A table: each row by its columns' heads."""


def rounded(rows: Iterable[D]) -> list[D]:
    """The rows with numbers of six digits, so that files and tables tell the same."""
    return [
        replace(row, **{k: float(f"{v:.6g}") for k, v in asdict(row).items() if isinstance(v, float)})
        for row in rows
    ]


def write_csv(rows: "Sequence[DataclassInstance]", path: Path) -> None:
    """One line a row; what is None stays empty."""
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(asdict(rows[0])))
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


def read_csv(path: Path, kind: type[R]) -> list[R]:
    """The rows of a file that `write_csv` wrote, as instances of their dataclass."""
    with path.open(newline="") as file:
        lines = [{name: text or None for name, text in line.items()} for line in csv.DictReader(file)]
    return [TypeAdapter[Any](kind).validate_python(line) for line in lines]


def show(title: str, cells: Cells) -> None:
    """Print a table."""
    table = Table(title=title)
    for number, head in enumerate(cells[0]):
        table.add_column(head, justify="left" if number == 0 else "right")
    for line in cells:
        table.add_row(*line.values())
    Console().print(table)


def markdown(cells: Cells) -> str:
    """A table as Markdown; all but the first column are aligned to the right."""
    heads = list(cells[0])
    ruler = ["---", *["---:"] * (len(heads) - 1)]
    lines = [heads, ruler, *(list(line.values()) for line in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """The mean, and the standard deviation where there are several."""
    given = list(values)
    several = f" ± {stdev(given):.{digits}f}" if len(given) > 1 else ""
    return f"{fmean(given):.{digits}f}{several}"


def percent(values: Iterable[float], digits: int = 1) -> str:
    """The mean of shares."""
    return f"{100 * fmean(values):.{digits}f}%"
