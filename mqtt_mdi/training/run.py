"""One training run from data set to bundle; running it again goes on where it stopped."""

from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import Manifest, Training
from mqtt_mdi.bundle.sample import draw_sample, write_sample
from mqtt_mdi.bundle.written import fingerprint, written_whole
from mqtt_mdi.datasets.labelled import FEWEST, Dataset, hold_out
from mqtt_mdi.datasets.normalisation import normalisation
from mqtt_mdi.errors import ConfigError, first_line
from mqtt_mdi.export.assemble import Evaluation
from mqtt_mdi.export.model import export_bundle
from mqtt_mdi.models.registry import build
from mqtt_mdi.models.stage import Backbone
from mqtt_mdi.training.curves import watch_into
from mqtt_mdi.training.loop import Progress, fit
from mqtt_mdi.training.methods import loss_of
from mqtt_mdi.training.recipe import Recipe
from mqtt_mdi.training.teacher import Taught, Teacher


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
    weights: Path | None = None,
    teacher: Teacher | None = None,
    device: str = "cpu",
) -> Manifest:
    """Train a registered model jointly at all exits and export it to the folder `out`.

    `held_out` training pictures are kept from fitting for calibration and thresholds; `sample` test
    pictures go into the bundle, 0 for none. `weights` are a backbone's to start from, with torchvision's
    names; the method `taught` needs a `teacher`. Raises ConfigError for choices that do not fit the data.
    """
    train, test = dataset.train, dataset.test
    if len(train.labels) < FEWEST:
        raise ConfigError(f"{len(train.labels)} training pictures are too few; take at least {FEWEST}")
    if not 1 < held_out < len(train.labels):
        raise ConfigError(
            f"--hold-out {held_out}: choose 2 to {len(train.labels) - 1} of the training pictures"
        )
    if (recipe.method == "taught") != (teacher is not None):
        needs = "has no use for a" if teacher else "needs a"
        raise ConfigError(f"--method {recipe.method} {needs} --teacher: only `taught` goes with one")
    drawn = draw_sample(test.pictures, test.labels, sample, recipe.seed) if sample else None
    mask = hold_out(train.labels, held_out, recipe.seed)
    normalise = normalisation(train.pictures)
    torch.manual_seed(recipe.seed)
    pixels = min(train.pictures.shape[2:])
    network = build(model, len(dataset.class_names), train.pictures.shape[1], width, pixels=pixels)
    settings = asdict(recipe) | {"exit_weights": ",".join(map(str, recipe.exit_weights))}
    if teacher:
        settings["teacher"] = teacher.name
    if weights:
        start_from(network, weights)
        settings["weights"] = f"{weights.name} {fingerprint(weights)}"
    loss = loss_of(recipe.method, recipe.exit_weights, len(network.stages()))
    out.mkdir(parents=True, exist_ok=True)
    fitted = fit(
        Taught(network, teacher, normalise) if teacher else network,
        train[~mask],
        normalise,
        recipe,
        loss=loss,
        checkpoint=checkpoint,
        progress=progress,
        watch=watch_into(out, train[mask], normalise),
        device=device,
    )
    trained = fitted.student if isinstance(fitted, Taught) else fitted
    with written_whole(out) as partial:
        manifest = export_bundle(
            trained,
            partial,
            name,
            Evaluation(dataset.class_names, normalise, train[mask], test, max_accuracy_loss),
            Training(
                recipe={"model": model, "width": width, "held_out": held_out, **settings},
                dataset=name,
                samples=len(train.labels),
                seed=recipe.seed,
                version=__version__,
            ),
        )
        if drawn:
            write_sample(drawn, partial)
    return manifest


def start_from(network: Backbone, path: Path) -> None:
    """Load the weights of a backbone, as wide or wider, from a state dictionary (.safetensors or .pth).

    Its names are torchvision's. Raises ConfigError when the file cannot be read or nothing in it fits.
    """
    try:
        safe = path.suffix == ".safetensors"
        state = load_file(path) if safe else torch.load(path, weights_only=True, map_location="cpu")
        missing = network.load_backbone(state)
    except Exception as error:  # each reader raises errors of its own
        raise ConfigError(
            f"cannot read the weights in {path}: {first_line(error)}; expected a state dictionary, as "
            "torch.save(network.state_dict(), file) writes it"
        ) from error
    known = [name for name in network.state_dict() if not name.startswith("exits.")]
    if len(missing) > len(known) // 2:
        raise ConfigError(
            f"{path} fits {len(known) - len(missing)} of {len(known)} tensors, not {missing[0]} for example; "
            "expected the state dictionary of this model, as wide or wider, under torchvision's names"
        )
