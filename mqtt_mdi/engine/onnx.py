"""The default engine: ONNX Runtime on the CPU, tuned for one small sample at a time."""

import os
from typing import Any

from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import StageSpec
from mqtt_mdi.engine.base import StageOutput, check_inputs, check_scores
from mqtt_mdi.engine.memory import give_memory_back
from mqtt_mdi.errors import BundleError

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
        give_memory_back()

    def run(self, inputs: NDArray[Any]) -> StageOutput:
        """Run the stage; see Engine.run."""
        check_inputs(inputs, self.spec)
        *activation, scores, labels = self._session.run(self._outputs, {"input": inputs})
        check_scores(scores, inputs, self.spec)
        return StageOutput(activation[0] if activation else None, scores, labels)
