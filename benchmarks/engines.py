"""A stage in torch, TorchScript and ONNX Runtime, and stages one by one beside all of them in one graph."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import measure
import networks
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mqtt_mdi.bundle.manifest import StageSpec
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.engine.torch import Mode, TorchStage
from mqtt_mdi.models.stage import Stage

FRAMES = 20
WARM_UP = 5

MODELS = {"MobileNetV2 1.0": "mobilenetv2", "ResNet-18": "resnet18"}
ONE_BY_ONE = "all stages, one by one"
ONE_GRAPH = {"one graph, every exit": True, "one graph, last exit": False}

Chain = Sequence[Engine]
Rivals = Mapping[str, Mapping[str, Chain]]
"""Engine -> what it runs -> its parts in order."""


class _Whole(nn.Module):
    """All stages in one module; its logits are those of every exit, or of the last alone."""

    def __init__(self, stages: Sequence[Stage], *, every_exit: bool) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(stage.body for stage in stages)
        self.heads = nn.ModuleList(stage.head for stage in stages)
        self.every_exit = every_exit

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        logits = []
        for number, (body, head) in enumerate(zip(self.bodies, self.heads, strict=True), 1):
            x = body(x)
            if self.every_exit or number == len(self.bodies):
                logits.append(head(x))
        return x, torch.cat(logits)


def _torch(stages: Sequence[nn.Module], specs: Sequence[StageSpec], mode: Mode) -> Chain:
    return [TorchStage(stage, spec, mode) for stage, spec in zip(stages, specs, strict=True)]


def rivals_of(network: networks.Network) -> Rivals:
    """Each engine with the stages one by one, and with all of them in one graph."""
    specs = network.manifest.stages
    whole_spec = specs[0].model_copy(update={"output_shape": None, "activation_bytes": 0})
    modules = {name: _Whole(network.stages, every_exit=every) for name, every in ONE_GRAPH.items()}
    modes: dict[str, Mode] = {"torch": "eager", "TorchScript": "script"}
    in_torch = {
        name: {ONE_BY_ONE: _torch(network.stages, specs, mode)}
        | {title: _torch([module], [whole_spec], mode) for title, module in modules.items()}
        for name, mode in modes.items()
    }
    graphs = {
        "ONNX": network.graphs,
        "int8": network.in_int8(),
    }
    in_onnx = {
        name: {ONE_BY_ONE: networks.loaded(stages)}
        | {
            title: networks.loaded([networks.joined(stages, every_exit=every)])
            for title, every in ONE_GRAPH.items()
        }
        for name, stages in graphs.items()
    }
    return in_torch | in_onnx


def _milliseconds(chain: Chain, frame: NDArray[Any]) -> list[float]:
    """The median time of each part of a chain."""
    taken: list[list[float]] = [[] for _ in chain]
    for _ in range(WARM_UP + FRAMES):
        values = frame
        for engine, times in zip(chain, taken, strict=True):
            began = perf_counter()
            output = engine.run(values)
            times.append(1000 * (perf_counter() - began))
            if output.activation is not None:
                values = output.activation
    return [median(times[WARM_UP:]) for times in taken]


def _round(name: str, rivals: Rivals, frame: NDArray[Any]) -> Iterator[measure.Row]:
    figures: dict[str, dict[str, float]] = {}
    for engine, chains in rivals.items():
        for part, chain in chains.items():
            times = _milliseconds(chain, frame)
            if part == ONE_BY_ONE:
                for number, time in enumerate(times, 1):
                    figures.setdefault(f"stage {number}", {})[engine] = time
            figures.setdefault(part, {})[engine] = sum(times)
    for part, figure in figures.items():
        yield {
            "network, part": f"{name}, {part}",
            **{f"{engine}, ms": time for engine, time in figure.items()},
            "torch / ONNX": figure["torch"] / figure["ONNX"],
            "TorchScript / ONNX": figure["TorchScript"] / figure["ONNX"],
            "ONNX / int8": figure["ONNX"] / figure["int8"],
            "of one by one, ONNX": figure["ONNX"] / figures[ONE_BY_ONE]["ONNX"],
        }


def engines(rounds: int = 5) -> list[measure.Row]:
    """Milliseconds for one frame on one thread; engines take turns, ratios are those of a round."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        chosen = [networks.untrained(name, model, Path(folder, model)) for name, model in MODELS.items()]
        chosen.append(networks.shipped())
        prepared = [(network, rivals_of(network)) for network in chosen]
    measured: list[measure.Row] = []
    for _ in range(rounds):
        for network, rivals in prepared:
            shape = (1, *network.manifest.input.shape)
            frame = np.random.default_rng(1).normal(size=shape).astype(np.float32)
            measured += _round(network.name, rivals, frame)
    return measure.medians(measured, "network, part")


def main() -> None:
    """Print the table alone."""
    measure.table("One frame on one thread", engines())


if __name__ == "__main__":
    main()
