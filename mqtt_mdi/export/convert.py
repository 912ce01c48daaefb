"""From one bundle to another whose activations are smaller on the wire, or that computes in int8."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import Manifest, read_manifest
from mqtt_mdi.bundle.sample import SAMPLE_FILE
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.bundle.written import WEIGHTS_FILE, written_whole
from mqtt_mdi.datasets.labelled import Dataset, hold_out
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.export.assemble import Evaluation, StageGraph, assemble, stage_spec
from mqtt_mdi.export.encoding import decode, encode, scaling_of
from mqtt_mdi.export.quantise import quantise

Wire = Literal["float32", "float16", "int8"]
Compute = Literal["float32", "int8"]
Step = Callable[[str], None]
"""Told what is done next."""

_CALIBRATION = 500
"""Ranges settle after a few hundred samples."""
_BATCH = 50


@dataclass(frozen=True)
class Encoding:
    """What activations travel as, and what stages compute in."""

    wire: Wire = "float32"
    compute: Compute = "float32"


def convert_bundle(
    folder: Path, out: Path, encoding: Encoding, evaluation: Evaluation, step: Step
) -> Manifest:
    """Write the bundle in `folder` to `out` with its activations and arithmetic as in `encoding`.

    `evaluation` is that of `evaluation_of`. Raises ConfigError or BundleError.
    """
    if out.resolve() == folder.resolve():
        raise ConfigError(f"--out {out} is the bundle itself; choose another folder")
    manifest = read_manifest(folder)
    if manifest.stage_count == 1 and encoding.wire != "float32":
        raise ConfigError(f"{folder} has one stage, which sends nothing to another; leave --wire out")
    graphs = [StageGraph(read_stage(folder, spec), spec.temperature) for spec in manifest.stages]
    step("measuring ranges")
    converted = convert_graphs(graphs, encoding, evaluation)
    step(f"measuring every exit on {len(evaluation.test.labels):,} test pictures")
    recipe = manifest.trained.recipe | {"wire": encoding.wire, "compute": encoding.compute}
    recipe["held_out"] = len(evaluation.held_out.labels)
    trained = manifest.trained.model_copy(update={"recipe": recipe, "version": __version__})
    with written_whole(out) as partial:
        written = assemble(partial, manifest.name, converted, evaluation, trained)
        copy_companions(folder, partial, evaluation)
        if encoding.compute == "float32" and (folder / WEIGHTS_FILE).exists():
            shutil.copyfile(folder / WEIGHTS_FILE, partial / WEIGHTS_FILE)
    return written


def evaluation_of(
    manifest: Manifest, dataset: Dataset, held_out: int | None, max_accuracy_loss: float
) -> Evaluation:
    """What the bundle was measured on: the same pictures held out, when the recipe says how many.

    `held_out` is for bundles of unknown training, or fewer. Raises ConfigError for another data set.
    """
    if dataset.class_names != manifest.classes or dataset.test.pictures.shape[1:] != manifest.input.shape:
        raise ConfigError(
            f"the data has pictures {dataset.test.pictures.shape[1:]} of {len(dataset.class_names)} classes "
            f"({', '.join(dataset.class_names[:3])}, ...), the bundle takes {manifest.input.shape} of "
            f"{len(manifest.classes)} ({', '.join(manifest.classes[:3])}, ...); choose the --dataset and "
            "--data that it was trained on"
        )
    known = manifest.trained.recipe.get("held_out")
    count = held_out if held_out is not None else known
    labels = dataset.train.labels
    if not isinstance(count, int):
        raise ConfigError(
            "the bundle does not say how many training pictures were held out; say it with --hold-out"
        )
    if isinstance(known, int) and count > known:
        raise ConfigError(f"--hold-out {count}: {known} were held out, the others it was trained on")
    if not 0 < count < len(labels):
        raise ConfigError(f"--hold-out {count}: choose 1 to {len(labels) - 1} of the training pictures")
    mask = hold_out(labels, count, manifest.trained.seed)
    normalise = Normalisation(manifest.input.mean, manifest.input.std)
    return Evaluation(manifest.classes, normalise, dataset.train[mask], dataset.test, max_accuracy_loss)


def convert_graphs(
    graphs: Sequence[StageGraph], encoding: Encoding, evaluation: Evaluation
) -> list[StageGraph]:
    """The stages in another arithmetic, sending other types; ranges are taken from the samples held out.

    Raises BundleError for stages that are converted already.
    """
    for index, stage in enumerate(graphs, start=1):
        _must_be_plain(stage, index)
    held_out = evaluation.held_out.pictures
    # From all over: pictures by class lie class by class, and the first show but a few of them.
    chosen = np.linspace(0, len(held_out) - 1, min(len(held_out), _CALIBRATION)).astype(int)
    values = evaluation.normalise(torch.from_numpy(held_out[chosen])).numpy()
    batches: list[NDArray[Any]] = np.array_split(values, max(1, len(values) // _BATCH))
    received, scaling, converted = None, None, []
    for index, stage in enumerate(graphs, start=1):
        model = onnx.load_from_string(stage.graph)
        if encoding.compute == "int8":
            model = quantise(model, batches)
        if index < len(graphs):
            batches = _activations(model, stage.temperature, batches)
            scaling = scaling_of(batches) if encoding.wire == "int8" else None
            if encoding.wire == "float16":
                _must_fit_float16(batches, index)
        if encoding.wire != "float32":
            if index > 1:
                decode(model, received)
            if index < len(graphs):
                encode(model, scaling)
        received = scaling
        converted.append(StageGraph(model.SerializeToString(deterministic=True), stage.temperature))
    return converted


def _must_fit_float16(activations: Sequence[NDArray[Any]], stage: int) -> None:
    greatest = max(float(np.abs(activation).max()) for activation in activations)
    if greatest > (most := float(np.finfo(np.float16).max)):
        raise ConfigError(
            f"stage {stage} gives {greatest:,.0f}, and float16 ends at {most:,.0f}: choose --wire int8"
        )


def _must_be_plain(stage: StageGraph, index: int) -> None:
    spec = stage_spec(stage, index)
    encoded = {spec.input_type, spec.output_type} != {"float32"}
    nodes = onnx.load_from_string(stage.graph).graph.node
    if encoded or any(node.op_type == "QuantizeLinear" for node in nodes):
        found = (
            f"it takes {spec.input_type} and sends {spec.output_type}" if encoded else "it computes in int8"
        )
        raise BundleError(
            f"stage {index} is converted already: {found}; convert the bundle that it was made from"
        )


def _activations(
    model: onnx.ModelProto, temperature: float, batches: Sequence[NDArray[Any]]
) -> list[NDArray[Any]]:
    stage = StageGraph(model.SerializeToString(), temperature)
    engine = OnnxStage(stage.graph, stage_spec(stage, 1))
    return [output for batch in batches if (output := engine.run(batch).activation) is not None]


def copy_companions(folder: Path, out: Path, evaluation: Evaluation) -> None:
    """Copy licence and sample of a bundle to another folder where they are there.

    A sample names rows of the test set, so it stays behind when that is another one.
    """
    same_rows = np.array_equal(read_trace(folder).truth, evaluation.test.labels)
    for name in ("LICENSE", *([SAMPLE_FILE] if same_rows else [])):
        if (folder / name).exists():
            shutil.copyfile(folder / name, out / name)
