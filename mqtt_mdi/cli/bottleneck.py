"""`mqtt-mdi bottleneck`: learn to say in few bytes what one stage sends to the next."""

import os
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.cli.compare import print_comparison
from mqtt_mdi.cli.convert import ROUNDS, learned_from, new_folder
from mqtt_mdi.cli.train import chosen_device
from mqtt_mdi.datasets.registry import DATASETS
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
    type=click.FloatRange(4, 1024),
    default=16,
    help="How many times fewer bytes than float32 an activation takes.",
)
@click.option(
    "--dataset", type=click.Choice(list(DATASETS)), help="What it was trained on, if it does not say."
)
@click.option(
    "--data", type=click.Path(path_type=Path), envvar="MDI_DATA", help="Its folder or archive, as for train."
)
@click.option("--epochs", type=click.IntRange(1), default=2, help="Passes over the data.")
@click.option("--batch", type=click.IntRange(2), default=128, help="Pictures per step.")
@click.option(
    "--learning-rate", type=click.FloatRange(0, min_open=True), default=0.1, help="The highest of a run."
)
@click.option("--shift", type=click.IntRange(0, 64), default=2, help="Pixels that pictures are moved by.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, help="Of everything random.")
@click.option(
    "--threads", type=click.IntRange(1), default=os.cpu_count(), envvar="MDI_THREADS", help="Cores used."
)
@click.option("--device", default="auto", envvar="MDI_DEVICE", help="cpu, cuda, or the GPU if there is one.")
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 1),
    default=0.002,
    help="What early exits may cost on the pictures held out, as a share of all answers.",
)
def bottleneck(
    bundle: Path,
    out: Path,
    ratio: float,
    dataset: str | None,
    data: Path | None,
    epochs: int,
    batch: int,
    learning_rate: float,
    shift: int,
    seed: int,
    threads: int,
    device: str,
    max_accuracy_loss: float,
) -> None:
    """Put a learned encoder at the end of each stage and a decoder at the start of the next.

    The network itself stays as it is: the new layers learn to give every exit what it had. Codes travel as
    int8. Works on bundles that `mqtt-mdi train` has written. The state is saved after each epoch: the same
    command goes on from there. Needs torch: pip install 'mqtt-mdi[train]'.

        mqtt-mdi bottleneck runs/cifar10 --data cifar-10-python.tar.gz --out runs/cifar10-16
    """
    try:
        import torch  # noqa: PLC0415 -- devices, which share this command line, have no torch

        from mqtt_mdi.training.loop import Recipe  # noqa: PLC0415
        from mqtt_mdi.training.shorten import shorten_bundle  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}: pip install 'mqtt-mdi[train]'") from error
    console = Console()
    new_folder(out)
    with console.status("reading the data"):
        samples = learned_from(read_manifest(bundle), dataset, data)
    torch.set_num_threads(threads)
    with Progress(
        TextColumn("epoch {task.fields[epoch]}/" + str(epochs)),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        task = bar.add_task("train", total=None, visible=False, epoch=0, loss=0.0)

        def show(epoch: int, step: int, steps: int, loss: float) -> None:
            done = epoch * steps + step + 1
            bar.update(task, completed=done, total=epochs * steps, visible=True, epoch=epoch + 1, loss=loss)

        shorten_bundle(
            bundle,
            out,
            samples,
            ratio=ratio,
            # A run is short: an average over as many steps as in a long one would still hold its start.
            recipe=Recipe(
                epochs=epochs,
                batch=batch,
                learning_rate=learning_rate,
                average_decay=0.99,
                shift=shift,
                seed=seed,
            ),
            max_accuracy_loss=max_accuracy_loss,
            progress=show,
            step=console.print,
            device=chosen_device(device),
        )
    console.print(f"bundle written to {out}")
    print_comparison([bundle, out], ROUNDS, console)
