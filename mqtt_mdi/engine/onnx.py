"""The default engine: ONNX Runtime on the CPU, tuned for one small sample at a time."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import StageSpec
from mqtt_mdi.engine.base import StageOutput
from mqtt_mdi.errors import BundleError, ProtocolError

# Its Linux wheels report usage to their maker unless told not to before the import; a factory's
# gateway reports to nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

# Faults of graphs and inputs become our own errors; ONNX Runtime would also print them.
_SILENT = 4
onnxruntime.set_default_logger_severity(_SILENT)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads must not burn the core they share with MQTT.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    return options


class OnnxStage:
    """A stage graph in ONNX Runtime."""

    def __init__(self, graph: bytes, spec: StageSpec, threads: int = 1) -> None:
        """Load `graph`, the bytes of an ONNX file; raises BundleError when that cannot be done."""
        self.spec = spec
        self._outputs = [*(["activation"] if spec.output_shape else []), "score", "label"]
        try:
            self._session = onnxruntime.InferenceSession(
                graph, _options(threads), providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base of their own
            raise BundleError(
                f"stage {spec.index} cannot be loaded: {str(error)[:300]}; rebuild or fetch the bundle again"
            ) from error
        inputs = {i.name: i.shape[1:] for i in self._session.get_inputs()}
        outputs = {o.name for o in self._session.get_outputs()}
        if inputs != {"input": list(spec.input_shape)} or outputs != set(self._outputs):
            raise BundleError(
                f"stage {spec.index}: graph takes {inputs} and gives {sorted(outputs)}, expected input "
                f"{list(spec.input_shape)} and {self._outputs}; rebuild or fetch the bundle again"
            )

    def run(self, inputs: NDArray[Any]) -> StageOutput:
        """Run the stage on inputs (N, ...) of the type and shape in the manifest.

        Raises ProtocolError for another shape or type, for values that are not finite, and for values
        so large that the exit's score is not.
        """
        where = f"input of stage {self.spec.index}"
        if (
            inputs.dtype.name != self.spec.input_type
            or inputs.shape[1:] != self.spec.input_shape
            or not len(inputs)
        ):
            raise ProtocolError(
                f"{where}: got {inputs.dtype} of shape {inputs.shape}, expected {self.spec.input_type} of "
                f"shape (samples, {', '.join(map(str, self.spec.input_shape))})"
            )
        if not np.isfinite(inputs).all():
            raise ProtocolError(f"{where}: got NaN or infinite values, expected finite ones")
        *activation, scores, labels = self._session.run(self._outputs, {"input": inputs})
        if not np.isfinite(scores).all():
            raise ProtocolError(
                f"{where}: got values up to {np.abs(inputs).max():g}, expected ones that give a finite score"
            )
        return StageOutput(activation[0] if activation else None, scores, labels)
