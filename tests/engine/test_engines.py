"""What every engine must do: one suite, run on each."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, StageSpec, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.stages import read_stage
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.engine.base import Engine
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.engine.torch import TorchStage
from mqtt_mdi.errors import ProtocolError
from mqtt_mdi.export.rebuild import network_of
from mqtt_mdi.models.stage import Stage

MANIFEST = read_manifest(SHIPPED_BUNDLE)


def onnx_stage(spec: StageSpec) -> Engine:
    return OnnxStage(read_stage(SHIPPED_BUNDLE, spec), spec)


@cache
def stages() -> list[Stage]:
    return network_of(SHIPPED_BUNDLE, MANIFEST).stages()


def torch_stage(spec: StageSpec) -> Engine:
    return TorchStage(stages()[spec.index - 1], spec)


def script_stage(spec: StageSpec) -> Engine:
    return TorchStage(stages()[spec.index - 1], spec, "script")


@pytest.fixture(params=[onnx_stage, torch_stage, script_stage])
def load(request: pytest.FixtureRequest) -> Callable[[int], Engine]:
    return lambda index: request.param(MANIFEST.stage(index))  # type: ignore[no-any-return]


def noise(index: int, samples: int) -> NDArray[np.float32]:
    shape = (samples, *MANIFEST.stage(index).input_shape)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def test_it_gives_the_scores_of_the_trace(load: Callable[[int], Engine]) -> None:
    sample, trace = read_sample(SHIPPED_BUNDLE), read_trace(SHIPPED_BUNDLE)
    rows = sample.indices[:100]
    normalise = Normalisation(MANIFEST.input.mean, MANIFEST.input.std)
    inputs = normalise(torch.tensor(sample.pictures[:100, None])).numpy()
    for k in range(MANIFEST.stage_count):
        output = load(k + 1).run(inputs)
        # Folding batch normalisation before or after weights are rounded decides a near tie.
        assert (output.labels == trace.label[rows, k]).mean() >= 0.99
        np.testing.assert_allclose(output.scores, trace.score[rows, k], atol=5e-3)
        if output.activation is not None:
            inputs = output.activation
    assert output.activation is None


@pytest.mark.parametrize("index", [1, 2, 3, 4])
def test_the_batch_size_is_free(index: int, load: Callable[[int], Engine]) -> None:
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
def test_inputs_it_cannot_take(
    inputs: NDArray[np.float32], message: str, load: Callable[[int], Engine]
) -> None:
    with pytest.raises(ProtocolError, match=f"input of stage 1: .*{message}"):
        load(1).run(inputs)


def test_values_beyond_reason_are_refused_or_answered_with_a_number(load: Callable[[int], Engine]) -> None:
    stage = load(4)
    huge = noise(4, 1) * np.float32(5e37)
    try:
        scores = stage.run(huge).scores
    except ProtocolError as error:
        assert "expected ones that give a finite score" in str(error)  # noqa: PT017 -- either is right
    else:
        assert np.isfinite(scores).all()
    assert np.isfinite(stage.run(noise(4, 1)).scores).all()
