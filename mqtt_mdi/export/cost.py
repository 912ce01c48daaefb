"""What a stage graph takes, gives and costs, counted from the nodes of the ONNX file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import onnx

from mqtt_mdi.errors import BundleError

ACTIVATION = "activation"

_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}
_WEIGHTS = frozenset(_TYPES) | {onnx.TensorProto.INT32}
"""Element types of weights; others are shapes and axes."""

_SCALES: dict[str, tuple[int, ...]] = {
    "QuantizeLinear": (1, 2),
    "DequantizeLinear": (1, 2),
    "ConvInteger": (2, 3),
    "MatMulInteger": (2, 3),
    "QLinearConv": (1, 2, 4, 5, 6, 7),
    "QLinearMatMul": (1, 2, 4, 5, 6, 7),
}
"""Inputs of operators that say what integers stand for, and are no weights."""

Shapes = dict[str, tuple[int, ...]]
Count = Callable[[onnx.NodeProto, Shapes], int]
"""The multiply-adds of a node, from the shapes of what it takes and gives."""


@dataclass(frozen=True)
class Cost:
    """A stage graph in figures; shapes are those of one sample.

    `macs` are the multiply-adds of convolutions and products of matrices or tensors for one sample,
    `exit_macs` those that only the exit needs, `params` the elements of all weights.
    """

    input_shape: tuple[int, ...]
    input_type: str
    output_shape: tuple[int, ...] | None
    output_type: str
    macs: int
    exit_macs: int
    params: int


def cost_of(graph: bytes) -> Cost:
    """Read the figures of a stage graph; raises BundleError for a graph that cannot be measured."""
    try:
        model = onnx.load_from_string(graph)
        # Of one sample, so that what follows from their number is known, like the windows of all in a row.
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # onnx and protobuf raise errors of their own without a common base
        raise BundleError(f"the graph cannot be measured: {str(error)[:300]}") from error
    graph_ = model.graph
    # What is taken and given goes before what is noted of it inside, which a conversion may leave behind.
    values = {v.name: v.type for part in (graph_.value_info, graph_.input, graph_.output) for v in part}
    shapes = {name: _shape(value) for name, value in values.items()}
    shapes |= {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    macs = {node.output[0]: _macs(node, shapes) for node in model.graph.node}
    (entry,) = model.graph.input
    last = not any(output.name == ACTIVATION for output in model.graph.output)
    body = needed(model.graph.node, ACTIVATION)
    total = sum(macs.values())
    exit_macs = _last_product(macs) if last else total - sum(macs[node.output[0]] for node in body)
    return Cost(
        input_shape=shapes[entry.name][1:],
        input_type=_type(values[entry.name]),
        output_shape=None if last else shapes[ACTIVATION][1:],
        output_type="float32" if last else _type(values[ACTIVATION]),
        macs=total,
        exit_macs=exit_macs,
        params=_params(model.graph),
    )


def _params(graph: onnx.GraphProto) -> int:
    scales = {
        node.input[place]
        for node in graph.node
        for place in _SCALES.get(node.op_type, ())
        if place < len(node.input)
    }
    weights = [t for t in graph.initializer if t.data_type in _WEIGHTS and t.name not in scales]
    return sum(prod(tensor.dims) for tensor in weights)


def _last_product(macs: dict[str, int]) -> int:
    return next((count for count in reversed(macs.values()) if count), 0)


def needed(nodes: Iterable[onnx.NodeProto], name: str) -> list[onnx.NodeProto]:
    """The nodes that the value `name` is computed from, last first."""
    wanted, found = {name}, []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.output):
            found.append(node)
            wanted.update(node.input)
    return found


def _shape(value: onnx.TypeProto) -> tuple[int, ...]:
    """The shape for one sample; the number of samples may still have a name."""
    return tuple(d.dim_value or 1 for d in value.tensor_type.shape.dim)


def _type(value: onnx.TypeProto) -> str:
    kind = value.tensor_type.elem_type
    if kind not in _TYPES:
        name = onnx.helper.tensor_dtype_to_np_dtype(kind)
        raise BundleError(
            f"a stage that takes or gives {name} cannot be sent; expected one of {', '.join(_TYPES.values())}"
        )
    return _TYPES[kind]


def _macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    count = _COUNTS.get(node.op_type)
    return count(node, shapes) if count else 0


def _convolution(weights: int) -> Count:
    return lambda node, shapes: prod(shapes[node.output[0]]) * prod(shapes[node.input[weights]][1:])


def _deconvolution(node: onnx.NodeProto, shapes: Shapes) -> int:
    return prod(shapes[node.input[0]]) * prod(shapes[node.input[1]][1:])


def _gemm(node: onnx.NodeProto, shapes: Shapes) -> int:
    flipped = any(a.name == "transA" and a.i for a in node.attribute)
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][0 if flipped else 1]


def _product(node: onnx.NodeProto, shapes: Shapes) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _recurrence(node: onnx.NodeProto, shapes: Shapes) -> int:
    """All gates of all directions, at each step of each sequence."""
    steps, inward, onward = (shapes[name] for name in node.input[:3])
    return prod(steps[:2]) * (prod(inward) + prod(onward))


def _einsum(node: onnx.NodeProto, shapes: Shapes) -> int:
    """A product for each choice of indices; a sum or a change of order alone has none."""
    equation = next(a.s.decode() for a in node.attribute if a.name == "equation")
    terms = equation.replace(" ", "").partition("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, name in zip(terms, node.input, strict=True):
        shape = shapes[name]
        first, dots, rest = term.partition("...")
        # Dimensions behind the dots are the same from the last on.
        spread = [f".{place}" for place in range(len(shape) - len(first) - len(rest), 0, -1)] if dots else []
        for index, size in zip([*first, *spread, *rest], shape, strict=True):
            sizes[index] = max(size, sizes.get(index, 1))
    return prod(sizes.values()) if len(terms) > 1 else 0


_COUNTS: dict[str, Count] = {
    "Conv": _convolution(1),
    "ConvInteger": _convolution(1),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _deconvolution,
    "Gemm": _gemm,
    "MatMul": _product,
    "MatMulInteger": _product,
    "QLinearMatMul": _product,
    "RNN": _recurrence,
    "GRU": _recurrence,
    "LSTM": _recurrence,
    "Einsum": _einsum,
}
