"""`mqtt-mdi report`: what a database tells of one run, or of two side by side."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.reporting.files import write_csv
from mqtt_mdi.reporting.runs import Run, read_runs
from mqtt_mdi.reporting.tables import tables


def print_report(runs: Sequence[Run], console: Console) -> None:
    """Print every table."""
    for found in tables(runs):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        table.title, table.title_justify = Text(found.title, "bold"), "left"
        for place, heading in enumerate(found.headings):
            words = place in found.left
            table.add_column(Text(heading), justify="left" if words else "right", overflow="fold")
        for row in found.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        if found.note:
            console.print(Text(found.note, "dim"))


def write_page(runs: Sequence[Run], path: Path) -> None:
    """Write the report as one HTML file; ConfigError when what draws it is not installed."""
    try:
        from mqtt_mdi.reporting.page import page  # noqa: PLC0415 -- slow to import, and in an extra
    except ModuleNotFoundError as error:
        raise ConfigError(f"--html needs {error.name}: pip install 'mqtt-mdi[report]'") from error
    content = page(runs)
    try:
        path.write_text(content, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--html {path}: {error}; name a file that can be written") from error


@click.command(short_help="Report on a run, or compare two, from the database.")
@click.argument("databases", type=click.Path(dir_okay=False, path_type=Path), nargs=-1, required=True)
@click.option(
    "--pipeline",
    "pipelines",
    multiple=True,
    envvar="MDI_PIPELINE",
    help="Which pipeline, where a database has several; twice to compare two.",
)
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with figures, too."
)
@click.option(
    "--csv", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write CSV files here, too."
)
def report(
    databases: tuple[Path, ...], pipelines: tuple[str, ...], html: Path | None, folder: Path | None
) -> None:
    """Show what a coordinator stored: accuracy, throughput, exits, latency, devices and policies over time.

    DATABASES are one file, or two to compare. They are read as they are, also while a coordinator writes
    them. Time is cut into at most 40 stretches of equal length, from the first result to the last. The page
    is one file, which opens without a network.

    \b
    Example:
      mqtt-mdi report mqtt-mdi.db --html report.html
      mqtt-mdi report before.db after.db --csv figures
      mqtt-mdi report mqtt-mdi.db --pipeline cams --pipeline doors
    """  # noqa: D301 -- click's mark for lines to keep
    runs = read_runs(databases, pipelines)
    # a pipe has no width of its own, and its reader wants whole rows
    print_report(runs, Console(width=None if sys.stdout.isatty() else 160))
    written = [] if folder is None else write_csv(runs, folder)
    if html is not None:
        write_page(runs, html)
        written.append(html)
    if written:
        click.echo(f"wrote {', '.join(map(str, written))}")
