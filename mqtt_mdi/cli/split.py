"""`mqtt-mdi split`: from a network of one's own to a bundle that devices can run."""

from contextlib import nullcontext
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mqtt_mdi.cli.inspect import describe, numbers, print_bundle
from mqtt_mdi.cli.learning import (
    chosen_device,
    learning_options,
    measuring_options,
    new_data_options,
    told_when_stopped,
)
from mqtt_mdi.cli.options import FiniteRange, new_folder
from mqtt_mdi.datasets.labelled import usual_hold_out, usual_sample
from mqtt_mdi.datasets.registry import read_dataset
from mqtt_mdi.errors import ConfigError


@click.command(
    short_help="Split a network of your own into a bundle.", context_settings={"show_default": True}
)
@click.argument("network", metavar="MODULE:BUILD|FILE.onnx")
@click.option(
    "--cut",
    "cuts",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A stage ends after this layer (of an ONNX file: with this tensor), and an exit is put there. Give "
    "one for each. What it gives must be maps (N, C, H, W), tokens (N, T, C) or vectors (N, C).",
)
@click.option(
    "--last",
    metavar="NAME",
    help="The network ends after this layer or tensor, with a new exit in place of its classifier.  "
    "[default: what it gives itself, as logits]",
)
@click.option(
    "--freeze/--no-freeze",
    default=True,
    help="Train the exits alone, in minutes, or the network with them (not of an ONNX file).",
)
@new_data_options
@click.option("--samples", type=click.IntRange(2), help="Take so many training pictures.  [default: all]")
@click.option("--mean", callback=numbers, metavar="M1,M2,M3", help="What the network takes pictures to have,")
@click.option("--std", callback=numbers, metavar="S1,S2,S3", help="of values in 0..1.  [default: measured]")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="MDI_OUT",
    help="Folder that becomes the bundle.  [default: runs/MODULE]",
)
@click.option("--epochs", type=click.IntRange(1), default=20, help="Passes over the data.")
@learning_options
@click.option(
    "--learning-rate",
    type=FiniteRange(0, min_open=True),
    default=0.01,
    help="Of --no-freeze; 0.15 suits a network that is not trained yet.",
)
@measuring_options
def split(
    network: str,
    cuts: tuple[str, ...],
    last: str | None,
    freeze: bool,
    dataset: str,
    data: Path | None,
    size: int | None,
    samples: int | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    out: Path | None,
    epochs: int,
    batch: int,
    learning_rate: float,
    shift: int,
    mirror: bool,
    erase: int,
    seed: int,
    threads: int,
    device: str,
    hold_out: int | None,
    max_accuracy_loss: float,
    sample: int | None,
) -> None:
    """Split a network of your own into stages, train their exits, and write a bundle.

    The network is what the function BUILD in MODULE returns: called with no arguments, any torch module that
    takes pictures (N, C, H, W) and that torch.export can follow. MODULE is looked for in this folder, too.
    Or it is an ONNX file. Needs torch: pip install 'mqtt-mdi[train]'.

    \b
    Examples:
      mqtt-mdi split mynet:build --cut layer1 --cut layer2
      mqtt-mdi split mynet:build --cut layer1 --last layer3 --dataset pictures --data photos.zip
      mqtt-mdi split mynet.onnx --cut /layer1/Relu_output_0
    """  # noqa: D301 -- click's mark for lines to keep
    try:
        import torch  # noqa: PLC0415 -- devices, which share this command line, have no torch

        from mqtt_mdi.datasets.normalisation import Normalisation  # noqa: PLC0415
        from mqtt_mdi.splitting.rebuild import built  # noqa: PLC0415
        from mqtt_mdi.splitting.run import (  # noqa: PLC0415
            Choices,
            split_module_bundle,
            split_onnx_bundle,
        )
        from mqtt_mdi.splitting.tapped import Split  # noqa: PLC0415
        from mqtt_mdi.training.recipe import Recipe  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(f"splitting needs {error.name}: pip install 'mqtt-mdi[train]'") from error
    is_file = network.endswith(".onnx")
    if is_file and not freeze:
        raise ConfigError("--no-freeze needs a torch module: what an ONNX file holds cannot be trained")
    if (mean is None) != (std is None) or (mean and std and len(mean) != len(std)):
        raise ConfigError("--mean and --std go together, with one number a channel")
    if not all(0 <= value <= 1 for value in (*(mean or ()), *(std or ()))) or 0 in (std or ()):
        raise ConfigError(
            "--mean and --std are of pixel values in 0..1, those of --std above 0; divide what is of 0..255 "
            "by 255"
        )
    console = Console(markup=False)
    torch.manual_seed(seed)
    module = None if is_file else built(network)
    out = out or Path("runs", Path(network).stem if is_file else network.partition(":")[0].rpartition(".")[2])
    new_folder(out)
    with console.status(f"reading {dataset}"):
        found = read_dataset(dataset, data, size)
    hold_out = usual_hold_out(samples or len(found.train.labels)) if hold_out is None else hold_out
    sample = usual_sample(found.test) if sample is None else sample
    torch.set_num_threads(threads)
    recipe = Recipe(
        epochs=epochs,
        batch=batch,
        learning_rate=learning_rate,
        shift=shift,
        mirror=mirror,
        erase=erase,
        seed=seed,
    )
    normalise = Normalisation(mean, std) if mean and std else None
    choices = Choices(samples, hold_out, sample, max_accuracy_loss, recipe, normalise, chosen_device(device))
    cutting = Split(Path(network).name if is_file else network, cuts, last)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
    ) as bar:
        bars: dict[str, TaskID] = {}

        def show(doing: str, done: int, of: int) -> None:
            if doing not in bars:
                bars[doing] = bar.add_task(doing, total=of)
            bar.update(bars[doing], completed=done, total=of)

        if module is None:
            split_onnx_bundle(Path(network), cutting, found, choices, out, name=dataset, progress=show)
        else:
            with nullcontext() if freeze else told_when_stopped(console):
                split_module_bundle(
                    module, cutting, found, choices, out, name=dataset, frozen=freeze, progress=show
                )
    console.print(f"bundle written to {out}")
    print_bundle(describe(out), console)
