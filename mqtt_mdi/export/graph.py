"""One stage as an ONNX graph: activation, exit score and label in one run, batch size free."""

import logging
import warnings

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from mqtt_mdi.errors import BundleError
from mqtt_mdi.models.stage import Stage

# The oldest that the exporter writes without converting, so that older runtimes load the graphs.
_OPSET = 18


class _ScoredStage(nn.Module):
    """A stage whose exit answers with the calibrated score and label instead of logits."""

    def __init__(self, stage: Stage, temperature: float, *, last: bool) -> None:
        super().__init__()
        self.stage = stage
        self.temperature = temperature
        self.last = last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        activation, logits = self.stage(x)
        score = torch.softmax(logits / self.temperature, dim=1).amax(dim=1)
        label = logits.argmax(dim=1)
        return (score, label) if self.last else (activation, score, label)


def stage_graph(stage: Stage, example: Tensor, temperature: float, *, last: bool) -> bytes:
    """Export a stage with its batch normalisation folded and its weights stored in half precision.

    `example` is an input (N, C, H, W) with N >= 2. The graph takes "input" (N, C, H, W) and gives
    "activation" (except for the last stage), "score" (N,), the highest softmax of logits /
    temperature, and "label" (N,) int64.
    """
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # torch's exporter uses parts of torch that torch has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            _ScoredStage(stage, temperature, last=last).eval(),
            (example,),
            dynamo=True,
            input_names=["input"],
            output_names=[*([] if last else ["activation"]), "score", "label"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            verbose=False,
        )
    if program is None:
        raise BundleError("the stage could not be exported to ONNX")
    model = program.model_proto
    _halve_weights(model.graph)
    _strip_notes(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _halve_weights(graph: onnx.GraphProto) -> None:
    """Store weights as float16, cast back when the graph is loaded: half the bytes on disk and wire."""
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:  # noqa: PLR2004 -- biases stay
            continue
        name = tensor.name
        half = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            raise BundleError(f"weights {name} do not fit into half precision; train again with more decay")
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _strip_notes(model: onnx.ModelProto) -> None:
    """Drop the exporter's notes: they are larger than some stages and name files of this machine."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
