"""From a network of one's own and a data set to a bundle: cut, train exits, measure."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import MAX_NAME, Manifest, Training
from mqtt_mdi.bundle.sample import draw_sample, write_sample
from mqtt_mdi.bundle.written import written_whole
from mqtt_mdi.datasets.labelled import FEWEST, Dataset, Labelled, hold_out
from mqtt_mdi.datasets.normalisation import Normalisation, normalisation
from mqtt_mdi.errors import ConfigError, first_line
from mqtt_mdi.export.assemble import Evaluation, StageGraph, assemble
from mqtt_mdi.export.calibrate import fit_temperature
from mqtt_mdi.export.cost import cost_of
from mqtt_mdi.export.graph import stage_graph
from mqtt_mdi.export.model import export_bundle
from mqtt_mdi.models.stage import Stage
from mqtt_mdi.splitting.heads import ExitHead, fit_heads, head_for
from mqtt_mdi.splitting.module import taps
from mqtt_mdi.splitting.onnx_file import Activations, CutGraph, cut_graph, with_exit
from mqtt_mdi.splitting.read_onnx import read_graph
from mqtt_mdi.splitting.tapped import Split, TappedModel
from mqtt_mdi.training.curves import watch_into
from mqtt_mdi.training.loop import fit
from mqtt_mdi.training.methods import loss_of
from mqtt_mdi.training.recipe import Recipe

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""

_RUN, _TRAIN, _MEASURE = "running the network", "training the exits", "exporting and measuring"
_BATCH = 100


@dataclass(frozen=True)
class Choices:
    """What a user decides besides the network: how many training pictures (None for all), and the rest.

    `normalise` is that of the pictures when None; `recipe` also serves the exits of a frozen network, which
    learn on the CPU whatever `device` the rest would.
    """

    samples: int | None
    held_out: int
    sample: int
    max_accuracy_loss: float
    recipe: Recipe
    normalise: Normalisation | None = None
    device: str = "cpu"


def split_module_bundle(  # noqa: PLR0913 -- each is an independent choice of the caller
    module: nn.Module,
    split: Split,
    dataset: Dataset,
    choices: Choices,
    out: Path,
    *,
    name: str,
    frozen: bool,
    progress: Progress,
) -> Manifest:
    """Cut a module, train its exits, and it with them unless `frozen`, into the folder `out`.

    Raises ConfigError for cuts and choices that do not fit, before anything is trained.
    """
    fitted, evaluation = _evaluation(dataset, choices)
    recipe = choices.recipe
    example = evaluation.normalise(torch.from_numpy(fitted.pictures[:2]))
    torch.manual_seed(recipe.seed)
    model = TappedModel(module, split, example, len(dataset.class_names))
    stages = model.stages()
    _check_exportable(stages, model.layers, example)
    if frozen:
        features = model.features(
            torch.from_numpy(fitted.pictures), evaluation.normalise, lambda *at: progress(_RUN, *at)
        )
        _fit(list(model.heads), features, fitted, recipe, progress)  # type: ignore[arg-type]
        trained: nn.Module = model
    else:
        # The loop computes with channels last, which view() in a forward() may not take.
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        taps(module, example.contiguous(memory_format=torch.channels_last), model.layers)
        trained = fit(
            model,
            fitted,
            evaluation.normalise,
            recipe,
            loss=loss_of(recipe.method, recipe.exit_weights, len(stages)),
            checkpoint=out / "checkpoint.pt",
            progress=lambda epoch, step, steps, _: progress(
                "training", epoch * steps + step + 1, recipe.epochs * steps
            ),
            watch=watch_into(out, evaluation.held_out, evaluation.normalise),
            device=choices.device,
        )
    progress(_MEASURE, 0, 1)
    origin = _origin(split, name, fitted, choices, frozen=frozen)
    with written_whole(out) as partial:
        manifest = export_bundle(trained, partial, _named(out), evaluation, origin)
        _add_sample(dataset, choices, partial)
    progress(_MEASURE, 1, 1)
    return manifest


def split_onnx_bundle(  # noqa: PLR0913 -- each is an independent choice of the caller
    path: Path,
    split: Split,
    dataset: Dataset,
    choices: Choices,
    out: Path,
    *,
    name: str,
    progress: Progress,
) -> Manifest:
    """Cut an ONNX file, train exits on what its tensors hold, and write a bundle into the folder `out`.

    Raises ConfigError for a graph, cuts and choices that do not fit, before anything is trained.
    """
    fitted, evaluation = _evaluation(dataset, choices)
    held_out, classes = evaluation.held_out, len(dataset.class_names)
    example = evaluation.normalise(torch.from_numpy(fitted.pictures[:2])).numpy()
    model = read_graph(path, example.shape[1:])
    cut = cut_graph(model, split.cuts, split.last, classes, example)
    torch.manual_seed(choices.recipe.seed)
    if cut.own_exit:
        own = stage_graph(Stage(nn.Identity(), nn.Identity()), torch.rand(2, classes), 1.0, last=True)
        _check_works(with_exit(cut.parts[-1], own, last=True), "comes last")
    added = cut.cuts[:-1] if cut.own_exit else cut.cuts
    heads = [head_for(tensor.shape, classes) for tensor in added]
    pictures = np.concatenate([fitted.pictures, held_out.pictures])
    pooled = _pooled(cut, heads, pictures, evaluation.normalise, progress)
    count = len(fitted.labels)
    _fit(heads, [exit_[:count] for exit_ in pooled[: len(heads)]], fitted, choices.recipe, progress)
    progress(_MEASURE, 0, 1)
    graphs = []
    exits: list[nn.Module] = [*heads, *([nn.Identity()] if cut.own_exit else [])]
    for index, (part, tensor, head, known) in enumerate(zip(cut.parts, cut.cuts, exits, pooled, strict=True)):
        with torch.no_grad():
            logits = head.classify(known[count:]) if isinstance(head, ExitHead) else known[count:]
        temperature = round(fit_temperature(logits.numpy(), held_out.labels), 4)
        exit_ = stage_graph(Stage(nn.Identity(), head), torch.rand(2, *tensor.shape), temperature, last=True)
        last = index == len(exits) - 1
        graphs.append(StageGraph(with_exit(part, exit_, last=last), temperature))
    origin = _origin(split, name, fitted, choices, frozen=True)
    with written_whole(out) as partial:
        manifest = assemble(partial, _named(out), graphs, evaluation, origin)
        _add_sample(dataset, choices, partial)
    progress(_MEASURE, 1, 1)
    return manifest


def _check_exportable(stages: list[Stage], layers: list[str], example: Tensor) -> None:
    """Write each stage as ONNX; raises ConfigError for what ONNX has no words for."""
    for index, stage in enumerate(stages):
        last = index == len(stages) - 1
        where = f"ends after {layers[index]!r}" if index < len(layers) else "comes last"
        try:
            graph = stage_graph(stage, example, 1.0, last=last)
        except Exception as error:  # the exporter has no common base for what it raises
            cause: BaseException = error
            while cause.__cause__:
                cause = cause.__cause__
            raise ConfigError(
                f"the stage that {where} cannot be written as ONNX: {first_line(cause)}; put an operation "
                "that ONNX has in its place"
            ) from error
        _check_works(graph, where)
        if not last:
            with torch.no_grad():
                example = stage.body(example.clone())


def _check_works(graph: bytes, where: str) -> None:
    """Raise ConfigError for a stage that no device should be asked to hold."""
    cost = cost_of(graph)
    if not (cost.macs and cost.params):
        raise ConfigError(f"the stage that {where} multiplies nothing by weights; cut elsewhere")


def _evaluation(dataset: Dataset, choices: Choices) -> tuple[Labelled, Evaluation]:
    """The pictures to fit, and those to calibrate with and report on."""
    count, seed = len(dataset.train.labels), choices.recipe.seed
    samples = choices.samples or count
    if samples > count:
        raise ConfigError(f"--samples {samples}: the data set has {count} training pictures")
    if samples < FEWEST:
        raise ConfigError(f"{samples} training pictures are too few; take at least {FEWEST}")
    if not 1 < choices.held_out < samples - 1:
        raise ConfigError(
            f"--hold-out {choices.held_out}: choose 2 to {samples - 2} of {samples} training pictures"
        )
    if choices.sample:  # before hours are spent
        draw_sample(dataset.test.pictures, dataset.test.labels, choices.sample, seed)
    train = dataset.train
    taken = hold_out(train.labels, samples, seed)
    kept = hold_out(train.labels, choices.held_out, seed)
    normalise = choices.normalise or normalisation(train.pictures[taken])
    if len(normalise.mean) != train.pictures.shape[1]:
        raise ConfigError(
            f"--mean and --std have {len(normalise.mean)} values, pictures {train.pictures.shape[1]} channels"
        )
    return train[taken & ~kept], Evaluation(
        dataset.class_names, normalise, train[kept], dataset.test, choices.max_accuracy_loss
    )


def _fit(
    heads: list[ExitHead], features: list[Tensor], fitted: Labelled, recipe: Recipe, progress: Progress
) -> None:
    fit_heads(
        heads,
        features,
        torch.from_numpy(fitted.labels),
        epochs=recipe.epochs,
        batch=recipe.batch,
        seed=recipe.seed,
        done=lambda epoch, _: progress(_TRAIN, epoch + 1, recipe.epochs),
    )


def _pooled(
    cut: CutGraph,
    heads: list[ExitHead],
    pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    normalise: Normalisation,
    progress: Progress,
) -> list[Tensor]:
    """What each exit pools of pictures (N, C, H, W): (N, C) each, and the network's own logits last."""
    run = Activations(cut.whole, torch.get_num_threads())
    parts = []
    for start in range(0, len(pictures), _BATCH):
        given = run(normalise(torch.from_numpy(pictures[start : start + _BATCH])).numpy())
        tensors = [torch.from_numpy(activation) for activation in given]
        own = tensors[len(heads) :]
        parts.append([*(head.pool(a) for head, a in zip(heads, tensors, strict=False)), *own])
        progress(_RUN, min(start + _BATCH, len(pictures)), len(pictures))
    return [torch.cat(exit_) for exit_ in zip(*parts, strict=True)]


def _origin(split: Split, name: str, fitted: Labelled, choices: Choices, *, frozen: bool) -> Training:
    recipe = asdict(choices.recipe) if not frozen else {"epochs": choices.recipe.epochs}
    recipe.pop("exit_weights", None)
    return Training(
        recipe={
            "network": split.network,
            "cuts": ",".join(split.cuts),
            "last": split.last or "",
            "frozen": frozen,
            "held_out": choices.held_out,
            **recipe,
        },
        dataset=name,
        samples=len(fitted.labels) + choices.held_out,
        seed=choices.recipe.seed,
        version=__version__,
    )


def _named(out: Path) -> str:
    return out.resolve().name[:MAX_NAME] or "model"


def _add_sample(dataset: Dataset, choices: Choices, out: Path) -> None:
    if choices.sample:
        test = dataset.test
        write_sample(draw_sample(test.pictures, test.labels, choices.sample, choices.recipe.seed), out)
