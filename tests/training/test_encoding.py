from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, helper

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.encoding import Scaling, decode, encode, scaling_of

SHAPE = (3, 2, 2, 2)
FLOAT32 = arrays(np.float32, SHAPE, elements=st.floats(-1000, 1000, width=32))


def run(model: onnx.ModelProto, values: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found: NDArray[Any] = session.run(None, {"input": values})[0]
    return found


def passing_on(shape: tuple[int, ...] = SHAPE[1:]) -> onnx.ModelProto:
    """A stage that gives what it takes."""
    given, taken = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])
        for name in ("activation", "input")
    )
    graph = helper.make_graph(
        [helper.make_node("Identity", ["input"], ["activation"])], "s", [taken], [given]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def over_the_wire(values: NDArray[Any], scaling: Scaling | None) -> tuple[NDArray[Any], NDArray[Any]]:
    """What is sent, and what the next stage makes of it."""
    sender, receiver = passing_on(values.shape[1:]), passing_on(values.shape[1:])
    encode(sender, scaling)
    decode(receiver, scaling)
    for model in (sender, receiver):
        onnx.checker.check_model(model, full_check=True)
    sent = run(sender, values)
    return sent, run(receiver, sent)


@given(FLOAT32)
def test_int8_is_off_by_a_step_of_its_channel_at_most(values: NDArray[np.float32]) -> None:
    scaling = scaling_of([values[:2], values[2:]])
    sent, received = over_the_wire(values, scaling)
    assert sent.dtype == np.int8
    steps = scaling.scale.reshape(1, -1, 1, 1)
    # Half a step, and at the edges another half, since zero has to be a multiple of the step.
    assert (np.abs(received - values) <= 1.001 * steps + 1e-30).all()
    spread = values.max((0, 2, 3), initial=0) - values.min((0, 2, 3), initial=0)
    np.testing.assert_allclose(scaling.scale, spread / 255, rtol=1e-5, atol=1e-30)


@pytest.mark.parametrize("shape", [(4, 5, 3), (4, 3)], ids=["tokens", "vectors"])
def test_channels_of_tokens_come_last(shape: tuple[int, ...]) -> None:
    """One channel is a thousand times as large as another, as in transformers, and neither loses by it."""
    values = np.random.default_rng(1).normal(size=shape).astype(np.float32) * np.float32([1, 1000, 1])
    scaling = scaling_of([values])
    _, received = over_the_wire(values, scaling)
    assert scaling.scale.shape == (3,)
    assert (np.abs(received - values) <= 1.001 * scaling.scale).all()
    assert scaling.scale[0] < 0.05


@given(FLOAT32)
def test_zero_stays_zero_in_int8(values: NDArray[np.float32]) -> None:
    _, received = over_the_wire(np.zeros(SHAPE, np.float32), scaling_of([values]))
    assert not received.any()


@given(FLOAT32, st.floats(1.5, 100))
@example(np.full(SHAPE, 1.729469e-36, np.float32), 2.0)
def test_values_beyond_the_range_end_at_its_edge(values: NDArray[np.float32], times: float) -> None:
    scaling = scaling_of([values])
    _, received = over_the_wire(values * np.float32(times), scaling)
    low, high = values.min((0, 2, 3), initial=0), values.max((0, 2, 3), initial=0)
    # A step is no smaller than numbers of full precision are.
    assert (received.max((0, 2, 3)) <= high + 1.001 * scaling.scale + 1e-30).all()
    assert (received.min((0, 2, 3)) >= low - 1.001 * scaling.scale - 1e-30).all()


@given(FLOAT32)
def test_float16_keeps_eleven_bits(values: NDArray[np.float32]) -> None:
    sent, received = over_the_wire(values, None)
    assert sent.dtype == np.float16
    assert (np.abs(received - values) <= np.abs(values) * 2.0**-11 + 2.0**-24).all()


def test_ranges_need_finite_samples() -> None:
    with pytest.raises(ConfigError, match="needs samples"):
        scaling_of([])
    with pytest.raises(ConfigError, match="not finite"):
        scaling_of([np.array([[[[np.inf]]]], np.float32)])
