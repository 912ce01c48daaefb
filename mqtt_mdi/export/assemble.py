"""From stage graphs to a bundle, in which every figure is measured on what ships."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import MANIFEST_FILE, Manifest, StageSpec, Training, macs_shares
from mqtt_mdi.bundle.thresholds import choose_thresholds
from mqtt_mdi.bundle.trace import HELD_OUT_FILE, ExitTrace, operating_point, write_trace
from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.export.calibrate import calibration_error
from mqtt_mdi.export.cost import cost_of
from mqtt_mdi.wire.inputs import InputSpec

_BATCH = 100


class StageGraph(NamedTuple):
    """The bytes of a stage's ONNX file, and the temperature its score is calibrated with."""

    graph: bytes
    temperature: float


@dataclass(frozen=True)
class Evaluation:
    """What a bundle is measured on: thresholds come from `held_out`, figures from `test`.

    The thresholds may cost `max_accuracy_loss` (0..1) of accuracy on `held_out`.
    """

    classes: tuple[str, ...]
    normalise: Normalisation
    held_out: Labelled
    test: Labelled
    max_accuracy_loss: float


def assemble(
    folder: Path, name: str, graphs: Sequence[StageGraph], evaluation: Evaluation, training: Training
) -> Manifest:
    """Write manifest, stage graphs and exit traces into `folder`; raises BundleError if they do not fit."""
    folder.mkdir(parents=True, exist_ok=True)
    specs = [stage_spec(stage, index) for index, stage in enumerate(graphs, start=1)]
    threads = os.cpu_count() or 1
    engines = [OnnxStage(s.graph, spec, threads) for s, spec in zip(graphs, specs, strict=True)]
    normalise, test = evaluation.normalise, evaluation.test
    shares = macs_shares(specs)
    held_out = trace_of(engines, evaluation.held_out, normalise)
    thresholds = choose_thresholds(held_out, shares, evaluation.max_accuracy_loss)
    trace = trace_of(engines, test, normalise)
    channels, height, width = test.pictures.shape[1:]
    manifest = Manifest(
        name=name,
        classes=evaluation.classes,
        input=InputSpec(
            height=height, width=width, channels=channels, mean=normalise.mean, std=normalise.std
        ),
        stages=tuple(specs),
        thresholds=thresholds,
        exit_accuracy=tuple(trace.correct.mean(axis=0).tolist()),
        exit_ece=tuple(calibration_error(trace.score[:, k], trace.correct[:, k]) for k in range(trace.exits)),
        operating_point=operating_point(trace, thresholds, shares),
        trained=training,
    )
    for stage, spec in zip(graphs, specs, strict=True):
        (folder / spec.graph).write_bytes(stage.graph)
    write_trace(trace, folder)
    write_trace(held_out, folder, HELD_OUT_FILE)
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest


def stage_spec(stage: StageGraph, index: int) -> StageSpec:
    """What the manifest says of a stage, read from its graph."""
    cost = cost_of(stage.graph)
    fields: dict[str, Any] = vars(cost)
    output_bytes = prod(cost.output_shape) * np.dtype(cost.output_type).itemsize if cost.output_shape else 0
    return StageSpec(
        index=index,
        graph=f"stage-{index}.onnx",
        sha256=hashlib.sha256(stage.graph).hexdigest(),
        activation_bytes=output_bytes,
        graph_bytes=len(stage.graph),
        temperature=stage.temperature,
        **fields,
    )


def trace_of(engines: Sequence[Engine], samples: Labelled, normalise: Normalisation) -> ExitTrace:
    """Run every sample through every stage and write down what each exit says."""
    scores, labels = [], []
    for start in range(0, len(samples.labels), _BATCH):
        pictures = torch.from_numpy(samples.pictures[start : start + _BATCH])
        activation: NDArray[Any] | None = normalise(pictures).numpy()
        said = []
        for engine in engines:
            assert activation is not None
            output = engine.run(activation)
            activation = output.activation
            said.append(output)
        scores.append(np.stack([output.scores for output in said], axis=1))
        labels.append(np.stack([output.labels for output in said], axis=1))
    return ExitTrace(
        np.concatenate(scores), np.concatenate(labels).astype(np.int16), samples.labels.astype(np.int16)
    )
