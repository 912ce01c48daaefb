"""From a trained bundle to one whose stages send the codes of learned bottlenecks."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import Manifest, read_manifest
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.models.registry import build
from mqtt_mdi.models.stage import Backbone
from mqtt_mdi.training.assemble import assemble
from mqtt_mdi.training.bottleneck import Bottlenecked, imitation
from mqtt_mdi.training.convert import Encoding, convert_graphs, copy_companions, evaluation_of
from mqtt_mdi.training.data import Dataset, hold_out
from mqtt_mdi.training.export import WEIGHTS_FILE, stage_graphs
from mqtt_mdi.training.loop import Progress, Recipe, fit


def shorten_bundle(  # noqa: PLR0913 -- each is an independent choice of the caller
    folder: Path,
    out: Path,
    dataset: Dataset,
    *,
    ratio: float,
    recipe: Recipe,
    max_accuracy_loss: float,
    progress: Progress,
    step: Callable[[str], None],
    device: str = "cpu",
) -> Manifest:
    """Train a bottleneck of `ratio` times fewer bytes at each cut and write the bundle to `out`.

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
        Bottlenecked(network, manifest.input.shape, ratio),
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
        "bottleneck_epochs": recipe.epochs,
        "bottleneck_learning_rate": recipe.learning_rate,
        "wire": "int8",
    }
    trained = manifest.trained.model_copy(
        update={"recipe": manifest.trained.recipe | told, "version": __version__}
    )
    encoded = convert_graphs(graphs, Encoding(wire="int8"), evaluation)
    written = assemble(out, manifest.name, encoded, evaluation, trained)
    (out / WEIGHTS_FILE).write_bytes(save(weights))
    copy_companions(folder, out, evaluation)
    return written


def network_of(folder: Path, manifest: Manifest) -> Backbone:
    """The network that a bundle was exported from, built from its recipe and its weights.

    Raises BundleError for a bundle that does not say how, or holds weights of something else.
    """
    recipe, path = manifest.trained.recipe, folder / WEIGHTS_FILE
    if "bottleneck" in recipe:
        raise BundleError(f"{folder} has bottlenecks already; take the bundle that it was made from")
    if "model" not in recipe or not path.exists():
        raise BundleError(
            f"{folder} cannot be trained on: its manifest names no model, or {WEIGHTS_FILE} is missing; "
            "expected a bundle that `mqtt-mdi train` has written"
        )
    network = build(
        str(recipe["model"]),
        len(manifest.classes),
        manifest.input.channels,
        float(recipe.get("width", 1.0)),
        pixels=min(manifest.input.height, manifest.input.width),
    )
    try:
        network.load_state_dict(load_file(path))
    except Exception as error:  # each reader raises errors of its own
        raise BundleError(f"{path} does not fit {recipe['model']}: {str(error)[:300]}") from error
    return network
