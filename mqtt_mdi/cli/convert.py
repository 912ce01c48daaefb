"""`mqtt-mdi convert`: smaller activations, or arithmetic in int8, for a bundle that is there already."""

from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from mqtt_mdi.bundle.manifest import Manifest, read_manifest
from mqtt_mdi.cli.compare import print_comparison
from mqtt_mdi.datasets.labelled import Dataset
from mqtt_mdi.datasets.registry import DATASETS, read_dataset
from mqtt_mdi.errors import ConfigError

ROUNDS = 200


def learned_from(manifest: Manifest, dataset: str | None, data: Path | None) -> Dataset:
    """Read the data that a bundle was trained on, at its size; raises ConfigError."""
    name = dataset or manifest.trained.dataset
    if name not in DATASETS:
        raise ConfigError(
            f"the bundle was trained on {name!r}, which cannot be read by name; say --dataset and --data"
        )
    return read_dataset(name, data, min(manifest.input.height, manifest.input.width))


def new_folder(out: Path) -> None:
    """Make the folder of a new bundle; raises ConfigError where it cannot be."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write to --out {out}: {error.strerror}") from error


@click.command(
    short_help="Make a bundle smaller on the wire, or its arithmetic int8.",
    context_settings={"show_default": True},
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder that becomes the new bundle.",
)
@click.option(
    "--wire",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    help="What a stage sends: half the bytes, or a quarter (int8 with a scale for each channel).",
)
@click.option(
    "--compute",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    help="What stages compute in; int8 quantises weights and activations.",
)
@click.option(
    "--dataset", type=click.Choice(list(DATASETS)), help="What it was trained on, if it does not say."
)
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="MDI_DATA", help="Its folder or archive, as for train."
)
@click.option(
    "--hold-out", type=int, help="Training pictures kept for ranges and thresholds, if it does not say."
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 1),
    default=0.002,
    help="What early exits may cost on those, as a share of all answers.",
)
def convert(
    bundle: Path,
    out: Path,
    wire: Literal["float32", "float16", "int8"],
    compute: Literal["float32", "int8"],
    dataset: str | None,
    data: Path | None,
    hold_out: int | None,
    max_accuracy_loss: float,
) -> None:
    """Write a bundle anew, with smaller activations on the wire or with int8 arithmetic.

    Works on any bundle of ONNX stages. Encoding and decoding become part of the stage graphs, so devices
    run the new bundle like any other. Ranges and thresholds are taken from the training pictures that were
    held out, and accuracies are measured again on the test pictures. Needs onnx and torch:
    pip install 'mqtt-mdi[train]'.

        mqtt-mdi convert runs/fashion-mnist --wire int8 --out runs/fashion-mnist-int8
    """
    if wire == compute == "float32":
        raise ConfigError("nothing to convert: choose --wire float16 or int8, or --compute int8")
    try:
        from mqtt_mdi.export.convert import (  # noqa: PLC0415 -- devices have no torch
            Encoding,
            convert_bundle,
            evaluation_of,
        )
    except ImportError as error:
        raise ConfigError(f"converting needs {error.name}: pip install 'mqtt-mdi[train]'") from error
    console = Console()
    new_folder(out)
    with console.status("reading the data") as status:
        manifest = read_manifest(bundle)
        samples = learned_from(manifest, dataset, data)
        evaluation = evaluation_of(manifest, samples, hold_out, max_accuracy_loss)
        convert_bundle(bundle, out, Encoding(wire, compute), evaluation, status.update)
    console.print(f"bundle written to {out}")
    print_comparison([bundle, out], ROUNDS, console)
