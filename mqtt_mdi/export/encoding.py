"""Smaller activations: nodes that encode what a stage sends and decode it where the next one begins."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.cost import ACTIVATION

INPUT = "input"
_LEVELS = 255
_LOWEST = -128


@dataclass(frozen=True)
class Scaling:
    """How channel c becomes int8: round(value / scale[c]) + zero[c]; both (C,)."""

    scale: NDArray[np.float32]
    zero: NDArray[np.int8]


def scaling_of(activations: Iterable[NDArray[np.floating[Any]]]) -> Scaling:
    """The scaling whose int8 covers all values of some activations, channel by channel.

    Activations are maps (N, C, H, W), tokens (N, T, C) or vectors (N, C).

    Affine quantisation as in Jacob et al., arXiv 1712.05877, equation 1. Zero is kept exact. Raises
    ConfigError when there are no activations, or values that are not finite.
    """
    lows, highs = [], []
    for part in activations:
        axis = _channels(part.ndim)
        channels = np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1).astype(np.float64)
        lows.append(channels.min(axis=1, initial=0.0))
        highs.append(channels.max(axis=1, initial=0.0))
    if not lows:
        raise ConfigError("int8 needs samples to measure the range of activations on; hold some out")
    low, high = np.min(lows, axis=0), np.max(highs, axis=0)
    if not np.isfinite(high - low).all():
        raise ConfigError("activations are not finite: int8 has no range for them; train again")
    scale = np.maximum((high - low) / _LEVELS, np.finfo(np.float32).tiny).astype(np.float32)
    zero = np.clip(np.round(_LOWEST - low / scale), _LOWEST, _LOWEST + _LEVELS).astype(np.int8)
    return Scaling(scale, zero)


def encode(model: onnx.ModelProto, scaling: Scaling | None) -> None:
    """Let a stage give its activation as int8, or as float16 without a scaling."""
    (output,) = (value for value in model.graph.output if value.name == ACTIVATION)
    plain = _rename(model.graph, ACTIVATION)
    if scaling is None:
        node = helper.make_node("Cast", [plain], [ACTIVATION], to=TensorProto.FLOAT16)
    else:
        parts = _constants(model.graph, scaling, "sent")
        axis = _channels(len(output.type.tensor_type.shape.dim))
        node = helper.make_node("QuantizeLinear", [plain, *parts], [ACTIVATION], axis=axis)
    model.graph.node.append(node)
    output.type.tensor_type.elem_type = _element(scaling)


def decode(model: onnx.ModelProto, scaling: Scaling | None) -> None:
    """Let a stage take its input as `encode` gives it."""
    (entry,) = model.graph.input
    plain = _rename(model.graph, INPUT)
    if scaling is None:
        node = helper.make_node("Cast", [INPUT], [plain], to=TensorProto.FLOAT)
    else:
        parts = _constants(model.graph, scaling, "received")
        axis = _channels(len(entry.type.tensor_type.shape.dim))
        node = helper.make_node("DequantizeLinear", [INPUT, *parts], [plain], axis=axis)
    model.graph.node.insert(0, node)
    entry.type.tensor_type.elem_type = _element(scaling)


def _channels(dimensions: int) -> int:
    """The axis of the channels: the last of tokens (N, T, C), else the one after the samples."""
    return 2 if dimensions == 3 else 1  # noqa: PLR2004 -- tokens


def _element(scaling: Scaling | None) -> int:
    return TensorProto.FLOAT16 if scaling is None else TensorProto.INT8


def _rename(graph: onnx.GraphProto, name: str) -> str:
    """Give a value another name wherever nodes take or give it; the new name."""
    plain = f"{name}.float32"
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [plain if found == name else found for found in names]
    return plain


def _constants(graph: onnx.GraphProto, scaling: Scaling, where: str) -> list[str]:
    names = [f"{where}.scale", f"{where}.zero"]
    graph.initializer.append(numpy_helper.from_array(scaling.scale, names[0]))
    graph.initializer.append(numpy_helper.from_array(scaling.zero, names[1]))
    return names
