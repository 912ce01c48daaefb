"""An ONNX file, read for any number of pictures of one shape."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.inliner import inline_local_functions

from mqtt_mdi.errors import ConfigError, first_line

_CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


def read_graph(path: Path, shape: Sequence[int]) -> onnx.ModelProto:
    """Read an ONNX file for inputs (N, *shape), N free; raises ConfigError for one that takes another."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        model = inline_local_functions(model)
    except Exception as error:  # onnx and protobuf raise errors of their own without a common base
        raise ConfigError(f"cannot read {path}: {first_line(error)}; expected an ONNX file") from error
    _check_operators(path, model)
    # Before version 4 weights had to be inputs as well.
    model.ir_version = max(model.ir_version, 4)
    graph = model.graph
    _keep_constants_as_weights(graph)
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [entry for entry in graph.input if entry.name not in weights]
    tensor = inputs[0].type.tensor_type if inputs else None
    if len(inputs) != 1 or tensor is None or tensor.elem_type != onnx.TensorProto.FLOAT:
        names = ", ".join(entry.name for entry in inputs)
        raise ConfigError(f"{path} takes {names or 'nothing'}, expected one float32 tensor (N, C, H, W)")
    takes = [size.dim_value or None for size in tensor.shape.dim]
    wanted = (None, *shape)
    if len(takes) != len(wanted) or any(a and b and a != b for a, b in zip(takes, wanted, strict=True)):
        raise ConfigError(
            f"{path} takes {inputs[0].name} of shape ({', '.join(str(size or 'N') for size in takes)}), the "
            f"pictures are (N, {', '.join(map(str, shape))}); choose their size with --size, or export the "
            "network again"
        )
    if takes[0]:
        _free_reshapes(graph)
    for size, length in zip(tensor.shape.dim, ("samples", *shape), strict=True):
        if isinstance(length, str):
            size.dim_param = length
        else:
            size.dim_value = length
    # What is written of shapes may hold for one sample alone; it is inferred afresh.
    del graph.value_info[:]
    for output in graph.output:
        output.type.tensor_type.ClearField("shape")
    del graph.input[:]
    graph.input.append(inputs[0])
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx raises errors of its own without a common base
        raise ConfigError(f"{path}: the shapes of its tensors cannot be told: {first_line(error)}") from error


def _check_operators(path: Path, model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if node.op_type in _CONTROL_FLOW:
            raise ConfigError(
                f"{path} has the operator {node.op_type}, and a graph with branches cannot be cut"
            )
        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, domain):
            raise ConfigError(
                f"{path} has the operator {domain}:{node.op_type}, which ONNX does not define; export it "
                "with operators of ONNX alone"
            )


def _keep_constants_as_weights(graph: onnx.GraphProto) -> None:
    for place in reversed(range(len(graph.node))):
        node = graph.node[place]
        if node.op_type == "Constant" and (tensor := _constant(node.attribute[0])) is not None:
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            del graph.node[place]


def _constant(value: onnx.AttributeProto) -> onnx.TensorProto | None:
    """The tensor of a Constant's attribute; None for text and sparse tensors."""
    match value.name:
        case "value":
            return value.t
        case "value_int" | "value_float" | "value_ints" | "value_floats":
            kind = np.int64 if "int" in value.name else np.float32
            return numpy_helper.from_array(np.asarray(onnx.helper.get_attribute_value(value), kind))
        case _:
            return None


def varying_tensors(graph: onnx.GraphProto) -> set[str]:
    """The tensors that follow from the input, which is all but weights and constants."""
    varying = {graph.input[0].name}
    for node in graph.node:
        if varying.intersection(node.input):
            varying.update(node.output)
    return varying


def _free_reshapes(graph: onnx.GraphProto) -> None:
    """Have a Reshape to one sample, as an export for one sample has it, keep however many there are."""
    known = {tensor.name: tensor for tensor in graph.initializer}
    varying = varying_tensors(graph)
    for node in graph.node:
        if node.op_type != "Reshape" or node.input[0] not in varying or node.input[1] not in known:
            continue
        shape = numpy_helper.to_array(known[node.input[1]]).copy()
        if len(shape) > 1 and shape[0] == 1 and 0 not in shape:
            shape[0] = 0
            name = f"{node.output[0]}.shape"
            graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input[1] = name
            # It would make 0 mean no samples, where it has to mean as many as come in.
            kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
            del node.attribute[:]
            node.attribute.extend(kept)
