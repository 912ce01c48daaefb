"""The networks that are measured: the shipped one, and untrained ones, which cost what trained ones do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import helper

from mqtt_mdi import __version__
from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, Manifest, Training, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.export.assemble import Evaluation, StageGraph, stage_spec
from mqtt_mdi.export.convert import Encoding, convert_graphs
from mqtt_mdi.export.model import export_bundle
from mqtt_mdi.export.rebuild import network_of
from mqtt_mdi.models.registry import build
from mqtt_mdi.models.stage import Backbone, Stage

CLASSES, CHANNELS, PIXELS = 10, 3, 32
SAMPLES = 50


@dataclass(frozen=True)
class Network:
    """A network in torch and as the graphs of a bundle, with pictures to measure ranges on."""

    name: str
    folder: Path
    manifest: Manifest
    stages: list[Stage]
    graphs: list[StageGraph]
    evaluation: Evaluation

    def in_int8(self) -> list[StageGraph]:
        """The graphs in static int8 arithmetic."""
        return convert_graphs(self.graphs, Encoding(compute="int8"), self.evaluation)


def shipped() -> Network:
    """The bundle that comes with the package, with its own weights."""
    sample = read_sample(SHIPPED_BUNDLE)
    pictures = Labelled(sample.pictures[:SAMPLES, None].copy(), sample.labels[:SAMPLES].astype(np.int64))
    return _read("Fashion-MNIST, shipped", SHIPPED_BUNDLE, pictures)


def untrained(name: str, model: str, folder: Path) -> Network:
    """A network of the paper's width with random weights, for pictures of 32x32, exported to `folder`."""
    torch.manual_seed(0)
    network = build(model, CLASSES, CHANNELS, 1.0, pixels=PIXELS)
    noise = export_untrained(name, network, folder, {"model": model, "width": 1.0})
    return _read(name, folder, noise)


def export_untrained(
    name: str, network: Backbone, folder: Path, recipe: Mapping[str, str | int | float]
) -> Labelled:
    """Make a bundle of a network with random weights; the pictures that its ranges come from."""
    draw = np.random.default_rng(0)
    pictures = draw.integers(0, 256, (SAMPLES, CHANNELS, PIXELS, PIXELS)).astype(np.uint8)
    noise = Labelled(pictures, np.arange(SAMPLES) % CLASSES)
    classes = tuple(f"class {number}" for number in range(CLASSES))
    evaluation = Evaluation(classes, Normalisation((0.5,) * 3, (0.25,) * 3), noise, noise, 1.0)
    trained = Training(recipe=dict(recipe), dataset="noise", samples=SAMPLES, seed=0, version=__version__)
    export_bundle(network.eval(), folder, name, evaluation, trained)
    return noise


def joined(stages: Sequence[StageGraph], *, every_exit: bool) -> StageGraph:
    """The stages' graphs joined into one; the score and label of each exit, or of the last alone."""
    graphs = [
        onnx.compose.add_prefix(onnx.load_from_string(stage.graph), f"{number}.", rename_inputs=number > 1)
        for number, stage in enumerate(stages, 1)
    ]
    whole = graphs[0]
    for number, graph in enumerate(graphs[1:], 1):
        whole = onnx.compose.merge_models(
            whole, graph, io_map=[(f"{number}.activation", f"{number + 1}.input")]
        )
    exits = range(1 if every_exit else len(graphs), len(graphs) + 1)
    for name, kind in (("score", onnx.TensorProto.FLOAT), ("label", onnx.TensorProto.INT64)):
        heads = [f"{number}.{name}" for number in exits]
        whole.graph.node.append(helper.make_node("Concat", heads, [name], axis=0))
        whole.graph.output.append(helper.make_tensor_value_info(name, kind, [None]))
    answers = onnx.utils.Extractor(whole).extract_model(["input"], ["score", "label"])
    return StageGraph(answers.SerializeToString(), stages[-1].temperature)


def graphs_of(folder: Path) -> list[StageGraph]:
    """The stage graphs of a bundle."""
    specs = read_manifest(folder).stages
    return [StageGraph(read_stage(folder, spec), spec.temperature) for spec in specs]


def loaded(graphs: Sequence[StageGraph]) -> list[Engine]:
    """Stage graphs in ONNX Runtime, on one thread."""
    return [OnnxStage(stage.graph, stage_spec(stage, number)) for number, stage in enumerate(graphs, 1)]


def _read(name: str, folder: Path, pictures: Labelled) -> Network:
    manifest = read_manifest(folder)
    normalise = Normalisation(manifest.input.mean, manifest.input.std)
    return Network(
        name,
        folder,
        manifest,
        network_of(folder, manifest).eval().stages(),
        graphs_of(folder),
        Evaluation(manifest.classes, normalise, pictures, pictures, 1.0),
    )
