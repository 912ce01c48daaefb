"""`mqtt-mdi train`: from a data set to a bundle that devices can run."""

from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.bundle.written import WEIGHTS_FILE, fingerprint
from mqtt_mdi.cli.inspect import describe, numbers, print_bundle
from mqtt_mdi.cli.learning import (
    chosen_device,
    learning_options,
    measuring_options,
    new_data_options,
    training_bar,
)
from mqtt_mdi.cli.options import FiniteRange, new_folder
from mqtt_mdi.datasets.labelled import Dataset, usual_hold_out, usual_sample
from mqtt_mdi.datasets.registry import read_dataset
from mqtt_mdi.errors import ConfigError

if TYPE_CHECKING:
    from mqtt_mdi.training.teacher import Teacher


@click.command(
    short_help="Train a network with early exits into a bundle.", context_settings={"show_default": True}
)
@click.option("--model", default="mobilenetv2", envvar="MDI_MODEL", help="Which network to train.")
@new_data_options
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MDI_OUT",
    help="Folder that becomes the bundle; holds the checkpoint on the way.  [default: runs/DATASET]",
)
@click.option(
    "--epochs", type=click.IntRange(1), default=20, envvar="MDI_EPOCHS", help="Passes over the data."
)
@learning_options
@click.option(
    "--learning-rate", type=FiniteRange(0, min_open=True), default=0.15, help="The highest of a run."
)
@click.option("--width", type=FiniteRange(0.1, 4), default=0.5, envvar="MDI_WIDTH", help="Share of channels.")
@click.option(
    "--method",
    help="How the exits learn: distilled (from the last one, too), joint, or taught (by a teacher).  "
    "[default: taught with --teacher, distilled without]",
)
@click.option(
    "--exit-weights",
    callback=numbers,
    help="Weight of each exit in the loss, as in 0.5,0.5,0.5,1.  [default: half for early exits]",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Start from these, of this network or a wider one: a state dictionary with torchvision's names "
    "(.pth or .safetensors).",
)
@click.option(
    "--teacher",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Learn from the answers of this bundle, that of a better network for the same classes.",
)
@click.option(
    "--views",
    type=click.IntRange(0, 10_000),
    default=0,
    help="Versions of each picture, moved, mirrored and erased; an epoch sees one, and the first follows the "
    "last, so that a teacher looks at each once.  [default: a new one each epoch]",
)
@measuring_options
def train(
    model: str,
    dataset: str,
    data: Path | None,
    size: int | None,
    out: Path | None,
    epochs: int,
    batch: int,
    width: float,
    shift: int,
    mirror: bool,
    erase: int,
    seed: int,
    threads: int,
    learning_rate: float,
    method: str | None,
    exit_weights: tuple[float, ...] | None,
    weights: Path | None,
    teacher: Path | None,
    views: int,
    device: str,
    hold_out: int | None,
    max_accuracy_loss: float,
    sample: int | None,
) -> None:
    """Train a network with early exits and export it as a bundle.

    The state is saved after each epoch: stop at will, the same command goes on from there. Needs torch:
    pip install 'mqtt-mdi[train]'. A first try in a minute or two:

        mqtt-mdi train --epochs 1 --width 0.25 --out runs/try
    """
    try:
        import torch  # noqa: PLC0415 -- devices, which share this command line, have no torch

        from mqtt_mdi.training.recipe import Recipe  # noqa: PLC0415
        from mqtt_mdi.training.run import train_bundle  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"training needs {error.name}: pip install 'mqtt-mdi[train]'") from error
    console = Console(markup=False)
    out = out or Path("runs", dataset)
    new_folder(out)
    with console.status(f"reading {dataset}"):
        samples = read_dataset(dataset, data, size)
    hold_out = usual_hold_out(len(samples.train.labels)) if hold_out is None else hold_out
    sample = usual_sample(samples.test) if sample is None else sample
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        console.print(f"{checkpoint} found: going on from its last finished epoch")
    torch.set_num_threads(threads)
    with training_bar(epochs, console) as bar:

        def show(epoch: int, step: int, steps: int, loss: float) -> None:
            bar(epoch, step, steps, loss)
            if (epoch + 1, step + 1) == (epochs, steps):
                console.print("trained; calibrating, exporting and measuring every exit")

        train_bundle(
            samples,
            dataset,
            out,
            checkpoint,
            model=model,
            width=width,
            recipe=Recipe(
                epochs=epochs,
                batch=batch,
                learning_rate=learning_rate,
                shift=shift,
                mirror=mirror,
                erase=erase,
                views=views,
                method=method or ("taught" if teacher else "distilled"),
                exit_weights=exit_weights or (),
                seed=seed,
            ),
            held_out=hold_out,
            max_accuracy_loss=max_accuracy_loss,
            sample=sample,
            progress=show,
            weights=weights,
            teacher=_teacher(teacher, samples, chosen_device(device), remembers=views > 0)
            if teacher
            else None,
            device=chosen_device(device),
        )
    console.print(f"bundle written to {out}")
    print_bundle(describe(out), console)


def _teacher(folder: Path, dataset: Dataset, device: str, *, remembers: bool) -> "Teacher":
    """The network of a bundle, to teach; raises ConfigError or BundleError."""
    from mqtt_mdi.datasets.normalisation import Normalisation  # noqa: PLC0415
    from mqtt_mdi.splitting.rebuild import trained_network_of  # noqa: PLC0415
    from mqtt_mdi.training.teacher import Teacher  # noqa: PLC0415

    manifest = read_manifest(folder)
    shape = dataset.train.pictures.shape[1:]
    if (manifest.classes, manifest.input.shape) != (dataset.class_names, shape):
        raise ConfigError(
            f"--teacher {folder} knows {len(manifest.classes)} classes of pictures {manifest.input.shape}, "
            f"the data has {len(dataset.class_names)} of {shape}; expected the same classes and size"
        )
    network, recipe = trained_network_of(folder, manifest), manifest.trained.recipe
    name = f"{recipe.get('network', recipe.get('model'))} {fingerprint(folder / WEIGHTS_FILE)}"
    normalise = Normalisation(manifest.input.mean, manifest.input.std)
    return Teacher(name, network, normalise, device, remembers=remembers)
