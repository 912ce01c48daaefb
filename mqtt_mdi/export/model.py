"""From a trained model to a bundle: calibrate, export each stage, measure, write."""

import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from mqtt_mdi.bundle.manifest import Manifest, Training
from mqtt_mdi.bundle.written import WEIGHTS_FILE
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.assemble import Evaluation, StageGraph, assemble
from mqtt_mdi.export.calibrate import fit_temperature, logits_of
from mqtt_mdi.export.graph import stage_graph
from mqtt_mdi.models.stage import StagedModel


def rounded_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dictionary as it ships: weights of layers in half precision, the rest as it is.

    What a module knows under two names is there twice: a file of weights holds no two that share memory.
    """
    return {
        name: (value.half() if value.is_floating_point() and value.ndim > 1 else value).clone(
            memory_format=torch.contiguous_format
        )
        for name, value in model.state_dict().items()
    }


def export_bundle(
    model: nn.Module, folder: Path, name: str, evaluation: Evaluation, training: Training
) -> Manifest:
    """Write a StagedModel as a bundle with its weights into `folder`.

    Temperatures are fitted on the samples held out. Raises ConfigError or BundleError.
    """
    graphs, weights = stage_graphs(model, evaluation)
    manifest = assemble(folder, name, graphs, evaluation, training)
    (folder / WEIGHTS_FILE).write_bytes(save(weights))
    return manifest


def stage_graphs(model: nn.Module, evaluation: Evaluation) -> tuple[list[StageGraph], dict[str, Tensor]]:
    """The graphs of a StagedModel's stages, and the weights as they ship that these were made with.

    Temperatures are fitted on the samples held out. Raises ConfigError or BundleError.
    """
    if not isinstance(model, StagedModel):
        raise ConfigError(f"{type(model).__name__} has no stages() to export")
    weights = rounded_state(model)
    shipped: Any = copy.deepcopy(model).cpu().eval()
    shipped.load_state_dict(weights)
    held_out = evaluation.held_out
    logits = logits_of(shipped, torch.from_numpy(held_out.pictures), evaluation.normalise)
    temperatures = [round(fit_temperature(z, held_out.labels), 4) for z in logits.numpy()]

    stages = shipped.stages()
    example = evaluation.normalise(torch.from_numpy(held_out.pictures[:2]))
    graphs = []
    for stage, temperature in zip(stages, temperatures, strict=True):
        last = stage is stages[-1]
        graphs.append(StageGraph(stage_graph(stage, example, temperature, last=last), temperature))
        if not last:
            with torch.no_grad():
                example, _ = stage(example)
    return graphs, weights
