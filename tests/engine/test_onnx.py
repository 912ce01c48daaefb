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
from mqtt_mdi.errors import BundleError, ProtocolError
from mqtt_mdi.wire.frames import NPY, Frame, decode_frame

MANIFEST = read_manifest(SHIPPED_BUNDLE)


def load(index: int) -> OnnxStage:
    spec = MANIFEST.stage(index)
    return OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec)


def noise(index: int, samples: int) -> NDArray[np.float32]:
    shape = (samples, *MANIFEST.stage(index).input_shape)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


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


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_the_batch_size_is_free(index: int) -> None:
    stage, inputs = load(index), noise(index, 5)
    whole = stage.run(inputs)
    single = [stage.run(inputs[i : i + 1]) for i in range(5)]
    assert whole.scores.shape == whole.labels.shape == (5,)
    assert whole.scores.dtype == np.float32
    assert whole.labels.dtype == np.int64
    np.testing.assert_allclose(whole.scores, np.concatenate([s.scores for s in single]), atol=1e-5)
    np.testing.assert_array_equal(whole.labels, np.concatenate([s.labels for s in single]))
    shape = MANIFEST.stage(index).output_shape
    if shape is None:
        assert whole.activation is None
    else:
        assert whole.activation is not None
        assert whole.activation.dtype == np.float32
        assert whole.activation.shape == (5, *shape)
        for i, one in enumerate(single):
            assert one.activation is not None
            np.testing.assert_allclose(whole.activation[i], one.activation[0], atol=1e-4)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((1, 1, 28, 28), np.float64), r"got float64 of shape \(1, 1, 28, 28\), expected float32"),
        (np.zeros((1, 28, 28), np.float32), r"got float32 of shape \(1, 28, 28\)"),
        (np.zeros((1, 1, 28, 27), np.float32), r"expected float32 of shape \(samples, 1, 28, 28\)"),
        (np.zeros((0, 1, 28, 28), np.float32), r"got float32 of shape \(0, 1, 28, 28\)"),
        (np.zeros((), np.float32), r"got float32 of shape \(\)"),
        (np.full((1, 1, 28, 28), np.nan, np.float32), "got NaN or infinite"),
        (np.full((1, 1, 28, 28), -np.inf, np.float32), "got NaN or infinite"),
    ],
)
def test_inputs_it_cannot_take(inputs: NDArray[np.float32], message: str) -> None:
    with pytest.raises(ProtocolError, match=f"input of stage 1: .*{message}"):
        load(1).run(inputs)


def test_values_beyond_reason_are_refused_or_answered_with_a_number() -> None:
    stage = load(4)
    huge = noise(4, 1) * np.float32(5e37)
    try:
        scores = stage.run(huge).scores
    except ProtocolError as error:
        assert "expected ones that give a finite score" in str(error)  # noqa: PT017 -- either is right
    else:
        assert np.isfinite(scores).all()
    assert np.isfinite(stage.run(noise(4, 1)).scores).all()


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


def test_an_engine_needs_no_torch_and_prints_nothing() -> None:
    program = (
        "import sys; from mqtt_mdi.engine.onnx import OnnxStage; "
        "from mqtt_mdi.bundle.manifest import *; from mqtt_mdi.bundle.stages import read_stage; "
        "spec = read_manifest(SHIPPED_BUNDLE).stage(1); OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec); "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")
