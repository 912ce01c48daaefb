import io
import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.errors import BundleError
from mqtt_mdi.wire.frames import NPY, Frame, decode_frame

MANIFEST = read_manifest(SHIPPED_BUNDLE)


def load(index: int) -> OnnxStage:
    spec = MANIFEST.stage(index)
    return OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec)


def npy(picture: NDArray[np.uint8]) -> Frame:
    stream = io.BytesIO()
    np.save(stream, picture)
    return Frame(NPY, stream.getvalue())


def test_frames_decoded_and_run_as_devices_do_give_the_scores_of_the_trace() -> None:
    sample, trace = read_sample(SHIPPED_BUNDLE), read_trace(SHIPPED_BUNDLE)
    rows = sample.indices[:100]
    engines: list[Engine] = [load(k) for k in range(1, 5)]
    inputs = np.concatenate([decode_frame(npy(p), MANIFEST.input) for p in sample.pictures[:100]])
    for k, engine in enumerate(engines):
        output = engine.run(inputs)
        np.testing.assert_array_equal(output.labels, trace.label[rows, k])
        np.testing.assert_allclose(output.scores, trace.score[rows, k], atol=1e-4)
        if output.activation is not None:
            inputs = output.activation
    assert output.activation is None


@pytest.mark.parametrize("cut", [0, 1, 1000, -1])
def test_a_damaged_graph_is_refused_in_silence(cut: int, capfd: pytest.CaptureFixture[str]) -> None:
    spec = MANIFEST.stage(1)
    graph = read_stage(SHIPPED_BUNDLE, spec)
    with pytest.raises(BundleError, match=r"stage 1 cannot be loaded: .*rebuild or fetch"):
        OnnxStage(graph[:cut], spec)
    assert capfd.readouterr() == ("", "")


def test_the_graph_of_another_stage_is_refused() -> None:
    with pytest.raises(BundleError, match=r"stage 1: graph takes .*expected input \[1, 28, 28\]"):
        OnnxStage(read_stage(SHIPPED_BUNDLE, MANIFEST.stage(4)), MANIFEST.stage(1))


def test_a_device_with_an_engine_loads_nothing_it_does_not_need_and_prints_nothing() -> None:
    program = (
        "import sys; import mqtt_mdi.cli.services; import mqtt_mdi.runtime.device; "
        "from mqtt_mdi.engine.onnx import OnnxStage; "
        "from mqtt_mdi.bundle.manifest import *; from mqtt_mdi.bundle.stages import read_stage; "
        "spec = read_manifest(SHIPPED_BUNDLE).stage(1); OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec); "
        "sys.exit(len({'PIL', 'cryptography', 'rich', 'sqlalchemy', 'torch', 'yaml'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
