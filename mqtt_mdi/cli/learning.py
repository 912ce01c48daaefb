"""What the commands that learn from data share: their options, and the bar of a training."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mqtt_mdi.bundle.manifest import Manifest
from mqtt_mdi.cli.options import FiniteRange
from mqtt_mdi.datasets.labelled import Dataset
from mqtt_mdi.datasets.registry import DATASETS, read_dataset
from mqtt_mdi.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
Show = Callable[[int, int, int, float], None]

_NEW_DATA = (
    click.option(
        "--dataset",
        type=click.Choice(list(DATASETS)),
        default="fashion-mnist",
        envvar="MDI_DATASET",
        help="What to learn. `pictures` are your own: train/CLASS/*.jpg and test/CLASS/*.jpg.",
    ),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        envvar="MDI_DATA",
        help="Its folder or archive; Debian's package when not given for fashion-mnist.",
    ),
    click.option(
        "--size",
        type=click.IntRange(8, 1024),
        help="Scale pictures by class to squares of this size, of their middle.",
    ),
)
_KNOWN_DATA = (
    click.option(
        "--dataset", type=click.Choice(list(DATASETS)), help="What it was trained on, if it does not say."
    ),
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        envvar="MDI_DATA",
        help="Its folder or archive, as for train.",
    ),
)
_LEARNING = (
    click.option("--batch", type=click.IntRange(2), default=128, envvar="MDI_BATCH", help="Pictures a step."),
    click.option(
        "--shift", type=click.IntRange(0, 64), default=2, help="Pixels that pictures are moved by at random."
    ),
    click.option(
        "--mirror/--no-mirror",
        default=True,
        help="Mirror half of the pictures at random; letters, digits and arrows must not be.",
    ),
    click.option(
        "--erase",
        type=click.IntRange(0, 512),
        default=0,
        help="Side of a square hidden in each picture, in pixels.",
    ),
    click.option(
        "--seed", type=click.IntRange(0, 2**31), default=1, envvar="MDI_SEED", help="Of everything random."
    ),
    click.option(
        "--threads", type=click.IntRange(1), default=os.cpu_count(), envvar="MDI_THREADS", help="Cores used."
    ),
    click.option(
        "--device", default="auto", envvar="MDI_DEVICE", help="cpu, cuda, or the GPU if there is one (auto)."
    ),
)

_HOLD_OUT = click.option(
    "--hold-out",
    type=int,
    help="Training pictures kept for calibration and thresholds.  [default: 2000, at most a fifth]",
)
_SAMPLE = click.option(
    "--sample",
    type=click.IntRange(0),
    help="Test pictures put beside the model.  [default: 1000, or as many as there are of each class]",
)


def _with(options: tuple[Callable[[F], F], ...]) -> Callable[[F], F]:
    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def new_data_options(command: F) -> F:
    """--dataset, --data and --size, for what is trained anew."""
    return _with(_NEW_DATA)(command)


def known_data_options(command: F) -> F:
    """--dataset and --data, for a bundle that says what it was trained on."""
    return _with(_KNOWN_DATA)(command)


def learning_options(command: F) -> F:
    """--batch, --shift, --mirror, --erase, --seed, --threads and --device."""
    return _with(_LEARNING)(command)


def measuring_options(command: F) -> F:
    """--hold-out, --max-accuracy-loss and --sample, for what is trained anew."""
    return _with((_HOLD_OUT, max_accuracy_loss_option, _SAMPLE))(command)


def max_accuracy_loss_option(command: F) -> F:
    """--max-accuracy-loss."""
    return click.option(
        "--max-accuracy-loss",
        type=FiniteRange(0, 1),
        default=0.002,
        help="What early exits may cost on the pictures held out, as a share of all answers.",
    )(command)


def learned_from(manifest: Manifest, dataset: str | None, data: Path | None) -> Dataset:
    """Read the data that a bundle was trained on, at its size; raises ConfigError."""
    name = dataset or manifest.trained.dataset
    if name not in DATASETS:
        raise ConfigError(
            f"the bundle was trained on {name!r}, which cannot be read by name; say --dataset and --data"
        )
    square = manifest.input.height == manifest.input.width
    return read_dataset(name, data, manifest.input.height if square else None)


def chosen_device(name: str) -> str:
    """The device to train on; raises ConfigError for one that this machine does not have."""
    import torch  # noqa: PLC0415 -- devices, which share this command line, have no torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in {"cpu", "cuda"} or (name == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"--device {name}: torch finds no such device here; choose cpu or auto")
    return name


@contextmanager
def training_bar(epochs: int, console: Console) -> Iterator[Show]:
    """A bar over all steps of a training; gives what is to be told after each step."""
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

        with told_when_stopped(console):
            yield show


@contextmanager
def told_when_stopped(console: Console) -> Iterator[None]:
    """Say how a training goes on when Ctrl-C ends it."""
    try:
        yield
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from the last finished epoch")
        raise
