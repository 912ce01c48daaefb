"""`mqtt-mdi compare`: bundles of one network side by side."""

from collections.abc import Sequence
from math import prod
from pathlib import Path

import click
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.errors import ConfigError

_ROUNDS = 300


def print_comparison(folders: Sequence[Path], rounds: int, console: Console) -> None:
    """Print what each stage of some bundles sends, how good its exit is and how long it takes."""
    try:
        from mqtt_mdi.export.timing import stage_times  # noqa: PLC0415 -- needs what devices lack
    except ImportError as error:
        raise ConfigError(f"comparing needs {error.name}: pip install 'mqtt-mdi[train]'") from error
    with console.status("measuring every stage with one picture on one thread"):
        times = stage_times(folders, rounds) * 1e3
    # Differences within a round: what slows the machine down then slows all bundles.
    extra = np.median(times - times[:, :1], axis=0)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("bundle", no_wrap=True, overflow="ellipsis", max_width=16)
    for heading in ("stage", "accuracy", "ECE", "sends B", "fewer", "KiB", "ms", "more us"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = read_manifest(folders[0])
    for folder, spent, more in zip(folders, np.median(times, axis=0), extra, strict=True):
        manifest = read_manifest(folder)
        for index, spec in enumerate(manifest.stages):
            sends, plain = spec.activation_bytes, 4 * prod(first.stages[index].output_shape or ())
            table.add_row(
                "" if index else folder.name,
                str(spec.index),
                f"{manifest.exit_accuracy[index]:.2%}",
                f"{manifest.exit_ece[index]:.2%}",
                f"{sends:,}" if sends else "",
                f"{plain / sends:.3g}x" if sends else "",
                f"{spec.graph_bytes / 1024:,.0f}",
                f"{spent[index]:.2f}",
                f"{more[index] * 1e3:+.0f}",
            )
        graphs = sum(spec.graph_bytes for spec in manifest.stages) / 1024
        accuracy = f"{manifest.operating_point.accuracy:.2%}"
        row = ("", "all", accuracy, "", "", "", f"{graphs:,.0f}", f"{spent.sum():.2f}")
        table.add_row(*row, f"{more.sum() * 1e3:+.0f}", end_section=True)
    console.print(table)
    console.print(
        '"all" is the accuracy at the bundle\'s own thresholds, and all stages one after the other.'
    )


@click.command(short_help="Put bundles of one network side by side.", context_settings={"show_default": True})
@click.argument("bundles", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--rounds", type=click.IntRange(3), default=_ROUNDS, help="Pictures that each is timed with.")
def compare(bundles: tuple[Path, ...], rounds: int) -> None:
    """Show what each stage sends, how good its exit is and how long it takes, bundle by bundle.

    Accuracies are those that the bundles measured on their test pictures. Times are medians for one
    picture on one thread of this machine; "more" is what a stage takes beyond that of the first bundle:
    the time to decode and encode, if all else is alike. "fewer" compares with what the first bundle
    would send as float32.
    """
    print_comparison(bundles, rounds, Console(markup=False))
