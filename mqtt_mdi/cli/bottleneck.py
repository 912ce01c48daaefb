"""`mqtt-mdi bottleneck`: learn to say in few bytes what one stage sends to the next."""

from pathlib import Path
from typing import Literal

import click
from rich.console import Console

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.cli.compare import print_comparison
from mqtt_mdi.cli.convert import ROUNDS
from mqtt_mdi.cli.learning import (
    chosen_device,
    known_data_options,
    learned_from,
    learning_options,
    max_accuracy_loss_option,
    training_bar,
)
from mqtt_mdi.cli.options import FiniteRange, StagesType, new_folder
from mqtt_mdi.errors import ConfigError


@click.command(
    short_help="Teach a trained bundle to send many times fewer bytes.",
    context_settings={"show_default": True},
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder that becomes the new bundle; holds the checkpoint on the way.",
)
@click.option(
    "--ratio",
    type=FiniteRange(4, 1024),
    default=16,
    help="How many times fewer bytes than float32 an activation takes.",
)
@click.option(
    "--cuts",
    type=StagesType(),
    default="all",
    help="Stages that send a code, like 1,2; the others send int8.",
)
@known_data_options
@click.option("--epochs", type=click.IntRange(1), default=2, help="Passes over the data.")
@learning_options
@click.option(
    "--learning-rate", type=FiniteRange(0, min_open=True), default=0.1, help="The highest of a run."
)
@max_accuracy_loss_option
def bottleneck(
    bundle: Path,
    out: Path,
    ratio: float,
    cuts: frozenset[int] | Literal["all"],
    dataset: str | None,
    data: Path | None,
    epochs: int,
    batch: int,
    learning_rate: float,
    shift: int,
    mirror: bool,
    erase: int,
    seed: int,
    threads: int,
    device: str,
    max_accuracy_loss: float,
) -> None:
    """Put a learned encoder at the end of each stage, or some, and a decoder at the start of the next.

    The network itself stays as it is: the new layers learn to give every exit what it had. Codes travel as
    int8. Works on bundles that `mqtt-mdi train` has written. The state is saved after each epoch: the same
    command goes on from there. Needs torch: pip install 'mqtt-mdi[train]'.

        mqtt-mdi bottleneck runs/cifar10 --data cifar-10-python.tar.gz --out runs/cifar10-16
    """
    try:
        import torch  # noqa: PLC0415 -- devices, which share this command line, have no torch

        from mqtt_mdi.training.recipe import Recipe  # noqa: PLC0415
        from mqtt_mdi.training.shorten import shorten_bundle  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}: pip install 'mqtt-mdi[train]'") from error
    console = Console(markup=False)
    new_folder(out)
    with console.status("reading the data"):
        samples = learned_from(read_manifest(bundle), dataset, data)
    torch.set_num_threads(threads)
    with training_bar(epochs, console) as show:
        shorten_bundle(
            bundle,
            out,
            samples,
            ratio=ratio,
            cuts=None if cuts == "all" else cuts,
            # A run is short: an average over as many steps as in a long one would still hold its start.
            recipe=Recipe(
                epochs=epochs,
                batch=batch,
                learning_rate=learning_rate,
                average_decay=0.99,
                shift=shift,
                mirror=mirror,
                erase=erase,
                seed=seed,
            ),
            max_accuracy_loss=max_accuracy_loss,
            progress=show,
            step=console.print,
            device=chosen_device(device),
        )
    console.print(f"bundle written to {out}")
    print_comparison([bundle, out], ROUNDS, console)
