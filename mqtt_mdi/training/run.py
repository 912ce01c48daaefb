"""One training run from data set to bundle; running it again goes on where it stopped."""

from dataclasses import asdict
from pathlib import Path

import torch

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import Manifest, Training
from mqtt_mdi.bundle.sample import draw_sample, write_sample
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.registry import build
from mqtt_mdi.training.assemble import Evaluation
from mqtt_mdi.training.data import Dataset, hold_out
from mqtt_mdi.training.export import export_bundle
from mqtt_mdi.training.loop import Progress, Recipe, fit, joint_loss, normalisation


def train_bundle(  # noqa: PLR0913 -- each is an independent choice of the caller
    dataset: Dataset,
    name: str,
    out: Path,
    checkpoint: Path,
    *,
    model: str,
    width: float,
    recipe: Recipe,
    held_out: int,
    max_accuracy_loss: float,
    sample: int,
    progress: Progress,
) -> Manifest:
    """Train a registered model jointly at all exits and export it to the folder `out`.

    `held_out` training pictures are kept from fitting for calibration and thresholds; `sample` test
    pictures go into the bundle, 0 for none. Raises ConfigError for choices that do not fit the data.
    """
    train, test = dataset.train, dataset.test
    if not 0 < held_out < len(train.labels):
        raise ConfigError(
            f"--hold-out {held_out}: choose 1 to {len(train.labels) - 1} of the training pictures"
        )
    drawn = draw_sample(test.pictures, test.labels, sample, recipe.seed) if sample else None
    mask = hold_out(train.labels, held_out, recipe.seed)
    normalise = normalisation(train.pictures)
    torch.manual_seed(recipe.seed)
    network = build(model, len(dataset.class_names), train.pictures.shape[1], width)
    fitted = fit(
        network, train[~mask], normalise, recipe, loss=joint_loss, checkpoint=checkpoint, progress=progress
    )
    manifest = export_bundle(
        fitted,
        out,
        name,
        Evaluation(dataset.class_names, normalise, train[mask], test, max_accuracy_loss),
        Training(
            recipe={"model": model, "width": width, "loss": "joint", "held_out": held_out, **asdict(recipe)},
            dataset=name,
            samples=len(train.labels),
            seed=recipe.seed,
            version=__version__,
        ),
    )
    if drawn:
        write_sample(drawn, out)
    return manifest
