"""From a trained bundle to one whose stages send the codes of learned bottlenecks."""

from collections.abc import Callable, Collection
from pathlib import Path

import torch
from safetensors.torch import save

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import Manifest, read_manifest
from mqtt_mdi.bundle.written import WEIGHTS_FILE, written_whole
from mqtt_mdi.datasets.labelled import Dataset, hold_out
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.assemble import assemble
from mqtt_mdi.export.convert import Encoding, convert_graphs, copy_companions, evaluation_of
from mqtt_mdi.export.model import stage_graphs
from mqtt_mdi.export.rebuild import network_of
from mqtt_mdi.training.bottleneck import Bottlenecked, imitation
from mqtt_mdi.training.loop import Progress, fit
from mqtt_mdi.training.recipe import Recipe


def shorten_bundle(  # noqa: PLR0913 -- each is an independent choice of the caller
    folder: Path,
    out: Path,
    dataset: Dataset,
    *,
    ratio: float,
    cuts: Collection[int] | None,
    recipe: Recipe,
    max_accuracy_loss: float,
    progress: Progress,
    step: Callable[[str], None],
    device: str = "cpu",
) -> Manifest:
    """Train bottlenecks of `ratio` times fewer bytes and write the bundle to `out`.

    `cuts` are the stages that send codes, from 1, None for all; the others send int8.
    Raises ConfigError or BundleError for bundles that `mqtt-mdi train` has not written, and other data.
    """
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is the bundle itself; choose another folder")
    manifest = read_manifest(folder)
    network = network_of(folder, manifest)
    evaluation = evaluation_of(manifest, dataset, None, max_accuracy_loss)
    mask = hold_out(dataset.train.labels, len(evaluation.held_out.labels), manifest.trained.seed)
    torch.manual_seed(recipe.seed)
    fitted = fit(
        Bottlenecked(network, manifest.input.shape, ratio, cuts),
        dataset.train[~mask],
        evaluation.normalise,
        recipe,
        loss=imitation,
        checkpoint=out / "checkpoint.pt",
        progress=progress,
        device=device,
    )
    step(f"exporting, and measuring every exit on {len(evaluation.test.labels):,} test pictures")
    graphs, weights = stage_graphs(fitted, evaluation)
    told = {
        "bottleneck": ratio,
        "bottleneck_cuts": "all" if cuts is None else ",".join(map(str, sorted(cuts))),
        "bottleneck_epochs": recipe.epochs,
        "bottleneck_learning_rate": recipe.learning_rate,
        "wire": "int8",
    }
    trained = manifest.trained.model_copy(
        update={"recipe": manifest.trained.recipe | told, "version": __version__}
    )
    encoded = convert_graphs(graphs, Encoding(wire="int8"), evaluation)
    with written_whole(out) as partial:
        written = assemble(partial, manifest.name, encoded, evaluation, trained)
        (partial / WEIGHTS_FILE).write_bytes(save(weights))
        copy_companions(folder, partial, evaluation)
    return written
