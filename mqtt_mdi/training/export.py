"""From a trained model to a bundle, in which every figure is measured on what ships."""

import copy
import hashlib
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mqtt_mdi.bundle.manifest import MANIFEST_FILE, Manifest, StageSpec, Training, macs_shares
from mqtt_mdi.bundle.thresholds import choose_thresholds
from mqtt_mdi.bundle.trace import ExitTrace, operating_point, write_trace
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.stage import Stage, StagedModel
from mqtt_mdi.training.calibrate import calibration_error, fit_temperature
from mqtt_mdi.training.data import Labelled
from mqtt_mdi.training.graph import stage_graph
from mqtt_mdi.training.loop import Normalisation, logits_of
from mqtt_mdi.wire.frames import InputSpec

WEIGHTS_FILE = "weights.safetensors"
_BATCH = 100


def rounded_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dictionary as it ships: weights of layers in half precision, the rest as it is."""
    return {
        name: value.half().contiguous()
        if value.is_floating_point() and value.ndim > 1
        else value.contiguous()
        for name, value in model.state_dict().items()
    }


def count_macs(module: nn.Module, inputs: Tensor) -> int:
    """Multiply-adds of convolutions and linear layers for one sample (1, ...)."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(inputs)
    return int(counter.get_total_flops()) // 2


def trace_of(engines: Sequence[OnnxStage], samples: Labelled, normalise: Normalisation) -> ExitTrace:
    """Run every sample through every stage and write down what each exit says."""
    scores, labels = [], []
    for start in range(0, len(samples.labels), _BATCH):
        pictures = torch.from_numpy(samples.pictures[start : start + _BATCH])
        activation: NDArray[np.float32] | None = normalise(pictures).numpy()
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


def _export_stage(  # noqa: PLR0913 -- a stage, where it stands, and where it goes
    stage: Stage, example: Tensor, index: int, temperature: float, folder: Path, *, last: bool
) -> tuple[StageSpec, OnnxStage, Tensor]:
    graph = stage_graph(stage, example, temperature, last=last)
    with torch.no_grad():
        activation = stage.body(example)
    shape = None if last else tuple(activation.shape[1:])
    spec = StageSpec(
        index=index,
        graph=f"stage-{index}.onnx",
        sha256=hashlib.sha256(graph).hexdigest(),
        input_shape=tuple(example.shape[1:]),
        output_shape=shape,
        macs=count_macs(stage, example[:1]),
        exit_macs=count_macs(stage.head, activation[:1]),
        params=sum(p.numel() for p in stage.parameters()),
        activation_bytes=4 * prod(shape) if shape else 0,
        graph_bytes=len(graph),
        temperature=temperature,
    )
    (folder / spec.graph).write_bytes(graph)
    return spec, OnnxStage(graph, spec, threads=os.cpu_count() or 1), activation


def export_bundle(  # noqa: PLR0913 -- each is an independent choice of the caller
    model: nn.Module,
    folder: Path,
    *,
    name: str,
    classes: Sequence[str],
    normalise: Normalisation,
    held_out: Labelled,
    test: Labelled,
    max_accuracy_loss: float,
    training: Training,
) -> Manifest:
    """Write manifest, stage graphs, weights and exit trace of a trained model into `folder`.

    `model` is a StagedModel. Temperatures and thresholds come from `held_out`; the figures in the
    manifest and the trace from `test`, run through the exported graphs. The thresholds may cost
    `max_accuracy_loss` (0..1) of accuracy on `held_out`.
    """
    if not isinstance(model, StagedModel):
        raise ConfigError(f"{type(model).__name__} has no stages() to export")
    folder.mkdir(parents=True, exist_ok=True)
    weights = rounded_state(model)
    shipped: Any = copy.deepcopy(model).eval()
    shipped.load_state_dict(weights)
    logits = logits_of(shipped, torch.from_numpy(held_out.pictures), normalise)
    temperatures = [round(fit_temperature(z, held_out.labels), 4) for z in logits.numpy()]

    stages: list[Stage] = shipped.stages()
    example = normalise(torch.from_numpy(test.pictures[:2]))
    specs, engines = [], []
    for index, (stage, temperature) in enumerate(zip(stages, temperatures, strict=True), start=1):
        last = index == len(stages)
        spec, engine, example = _export_stage(stage, example, index, temperature, folder, last=last)
        specs.append(spec)
        engines.append(engine)

    shares = macs_shares(specs)
    thresholds = choose_thresholds(trace_of(engines, held_out, normalise), shares, max_accuracy_loss)
    trace = trace_of(engines, test, normalise)
    channels, height, width = test.pictures.shape[1:]
    manifest = Manifest(
        name=name,
        classes=tuple(classes),
        input=InputSpec(
            height=height,
            width=width,
            channels=channels,
            mean=normalise.mean,
            std=normalise.std,
        ),
        stages=tuple(specs),
        thresholds=thresholds,
        exit_accuracy=tuple(trace.correct.mean(axis=0).tolist()),
        exit_ece=tuple(calibration_error(trace.score[:, k], trace.correct[:, k]) for k in range(trace.exits)),
        operating_point=operating_point(trace, thresholds, shares),
        trained=training,
    )
    write_trace(trace, folder)
    (folder / WEIGHTS_FILE).write_bytes(save(weights))
    # Last, so that a folder with a manifest is a whole bundle.
    (folder / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
    return manifest
