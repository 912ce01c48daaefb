"""Static int8 arithmetic: a stage graph whose convolutions and products multiply bytes."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from mqtt_mdi.errors import BundleError
from mqtt_mdi.export.encoding import INPUT

_OPERATORS = ["Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Clip", "Relu"]
# An exit's logits would get 255 levels, and its score fewer.
_FINE = {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]}


class _Batches(CalibrationDataReader):  # type: ignore[misc] # onnxruntime has no types
    def __init__(self, batches: Sequence[NDArray[Any]]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}


def quantise(model: onnx.ModelProto, inputs: Sequence[NDArray[Any]]) -> onnx.ModelProto:
    """The stage in int8: weights per output channel, activations by their range on `inputs` [(N, ...)].

    Static post-training quantisation by ONNX Runtime. Raises BundleError for a graph that it cannot quantise.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    _widen_weights(plain.graph)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a pass that folds what is folded already
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "stage.onnx")
        try:
            quantize_static(
                plain,
                path,
                _Batches(inputs),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATORS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=_FINE,
            )
            return onnx.load(path)
        except Exception as error:  # it raises whatever its parts raise
            raise BundleError(f"the stage cannot be quantised: {str(error)[:300]}") from error
        finally:
            root.setLevel(level)


def _widen_weights(graph: onnx.GraphProto) -> None:
    """Turn weights stored in half precision into plain ones, which the quantiser knows."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.input[0] in stored]
    for node in casts:
        (to,) = (a.i for a in node.attribute if a.name == "to")
        wide = numpy_helper.to_array(stored[node.input[0]]).astype(onnx.helper.tensor_dtype_to_np_dtype(to))
        graph.initializer.append(numpy_helper.from_array(wide, node.output[0]))
        graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in used]:
        graph.initializer.remove(tensor)
