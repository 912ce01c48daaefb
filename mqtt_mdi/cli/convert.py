"""`mqtt-mdi convert`: smaller activations, or arithmetic in int8, for a bundle that is there already."""

from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.cli.compare import print_comparison
from mqtt_mdi.cli.learning import known_data_options, learned_from, max_accuracy_loss_option
from mqtt_mdi.cli.options import new_folder
from mqtt_mdi.errors import ConfigError

ROUNDS = 200


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
@known_data_options
@click.option(
    "--hold-out", type=int, help="Training pictures kept for ranges and thresholds, if it does not say."
)
@max_accuracy_loss_option
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
    console = Console(markup=False)
    new_folder(out)
    with console.status("reading the data") as status:
        manifest = read_manifest(bundle)
        samples = learned_from(manifest, dataset, data)
        evaluation = evaluation_of(manifest, samples, hold_out, max_accuracy_loss)
        convert_bundle(bundle, out, Encoding(wire, compute), evaluation, status.update)
    console.print(f"bundle written to {out}")
    print_comparison([bundle, out], ROUNDS, console)
