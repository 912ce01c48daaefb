"""`mqtt-mdi inspect`: what a bundle holds, and what thresholds would bring."""

import json
from collections.abc import Sequence
from contextlib import suppress
from math import isfinite
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, Manifest, read_manifest
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.trace import operating_point, read_trace
from mqtt_mdi.errors import BundleError, ConfigError


def numbers(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    """Read an option such as 0.9,0.9,0.9."""
    if value is None:
        return None
    with suppress(ValueError):
        found = tuple(float(part) for part in value.split(","))
        if all(map(isfinite, found)):
            return found
    raise click.BadParameter(f"{value!r} is not a list of numbers such as 0.9,0.9,0.9")


def describe(folder: Path, thresholds: Sequence[float] | None = None) -> dict[str, Any]:
    """Everything `inspect` shows, replaying the exit trace at `thresholds` (the bundle's own if None).

    Raises BundleError when anything in the bundle is missing, damaged or changed.
    """
    manifest = read_manifest(folder)
    for spec in manifest.stages:
        read_stage(folder, spec)
    trace = read_trace(folder)
    if trace.exits != manifest.stage_count:
        raise BundleError(f"{folder}: trace of {trace.exits} exits beside {manifest.stage_count} stages")
    chosen = manifest.thresholds if thresholds is None else tuple(thresholds)
    point = operating_point(trace, chosen, manifest.macs_shares)
    full_accuracy = float(trace.correct[:, -1].mean())
    return {
        "name": manifest.name,
        "dataset": manifest.trained.dataset,
        "samples": len(trace.truth),
        "full_accuracy": full_accuracy,
        "full_macs": manifest.full_macs,
        "thresholds": list(chosen),
        "accuracy": point.accuracy,
        "accuracy_loss": full_accuracy - point.accuracy,
        "mean_macs_share": point.macs_share,
        "exits": list(point.exits),
        "stages": _stages(manifest),
    }


def _stages(manifest: Manifest) -> list[dict[str, Any]]:
    return [
        {
            "stage": spec.index,
            "accuracy": accuracy,
            "ece": ece,
            "macs": spec.macs,
            "exit_macs": spec.exit_macs,
            "macs_share": share,
            "params": spec.params,
            "activation_bytes": spec.activation_bytes,
            "graph_bytes": spec.graph_bytes,
            "temperature": spec.temperature,
        }
        for spec, share, accuracy, ece in zip(
            manifest.stages, manifest.macs_shares, manifest.exit_accuracy, manifest.exit_ece, strict=True
        )
    ]


def print_bundle(found: dict[str, Any], console: Console) -> None:
    """Print what `describe` found as two tables."""
    title = f"{found['name']}: {len(found['stages'])} exits, {found['full_macs'] / 1e6:.2f} M multiply-adds"
    console.print(title)
    exits = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in ("exit", "accuracy", "ECE", "M mul-add", "of full", "params", "KiB", "sends", "T"):
        exits.add_column(heading, justify="right", no_wrap=True)
    spent = 0
    for stage in found["stages"]:
        spent += stage["macs"]
        exits.add_row(
            str(stage["stage"]),
            f"{stage['accuracy']:.2%}",
            f"{stage['ece']:.2%}",
            f"{spent / 1e6:.2f}",
            f"{stage['macs_share']:.1%}",
            f"{stage['params']:,}",
            f"{stage['graph_bytes'] / 1024:,.0f}",
            f"{stage['activation_bytes']:,}",
            f"{stage['temperature']:.3f}",
        )
    console.print(exits)
    console.print(f"Leaving at the first exit that is sure enough ({found['samples']:,} test pictures)")
    point = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    point.add_row("thresholds", "  ".join(f"{threshold:g}" for threshold in found["thresholds"]))
    point.add_row(
        "leave at exit", "  ".join(f"{k}: {share:.1%}" for k, share in enumerate(found["exits"], 1))
    )
    point.add_row("accuracy", f"{found['accuracy']:.2%}")
    point.add_row("below the last exit", f"{100 * found['accuracy_loss']:.2f} points")
    point.add_row("multiply-adds", f"{found['mean_macs_share']:.1%} of the full network's")
    console.print(point)


@click.command()
@click.argument(
    "bundle",
    type=click.Path(path_type=Path),
    default=SHIPPED_BUNDLE,
    envvar="MDI_BUNDLE",
    metavar="[BUNDLE]",
)
@click.option(
    "--thresholds",
    callback=numbers,
    metavar="T1,T2,...",
    help="Replay these instead of the bundle's own, one for each exit but the last.",
)
@click.option(
    "--figure",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw accuracy against multiply-adds into this file, as SVG and PNG.",
)
@click.option(
    "--beside",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Another bundle to draw in, like a smaller one without early exits; may be repeated.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def inspect(
    bundle: Path,
    thresholds: tuple[float, ...] | None,
    figure: Path | None,
    beside: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Show what a bundle holds and what its thresholds bring.

    BUNDLE is a folder written by `mqtt-mdi train`, by default the trained one that comes with the
    package. Accuracies are those of the data set's test pictures, run through the very graphs that
    devices run. Costs add up from exit to exit, as shares of the network without early exits; "sends"
    is the bytes that go on to the next stage. Thresholds are replayed on what each exit said of
    each picture, so any can be tried:

        mqtt-mdi inspect --thresholds 0.99,0.99,0.99
    """
    if beside and figure is None:
        raise ConfigError("--beside draws bundles into a figure: name its file with --figure")
    found = describe(bundle, thresholds)
    if as_json:
        click.echo(json.dumps(found))
    else:
        print_bundle(found, Console(markup=False))
    if figure is not None:
        for path in _draw([bundle, *beside], figure):
            click.echo(f"{path} written", err=as_json)


def _draw(bundles: Sequence[Path], path: Path) -> list[Path]:
    try:
        from mqtt_mdi.experiments.figures import save  # noqa: PLC0415 -- an extra
        from mqtt_mdi.experiments.tradeoff import draw, tradeoff  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise ConfigError(f"figures need {error.name}: pip install 'mqtt-mdi[experiment]'") from error
    try:
        return save(draw([tradeoff(bundle) for bundle in bundles]), path)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}") from error
