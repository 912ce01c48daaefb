from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import TRACE_FILE, ExitTrace, operating_point, read_trace, replay, write_trace
from mqtt_mdi.errors import BundleError, ConfigError


def made(score: NDArray[np.float32], seed: int = 0) -> ExitTrace:
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 3, score.shape, np.int16)
    return ExitTrace(score, label, generator.integers(0, 3, len(score), np.int16))


scores = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.floats(0, 1, width=32),
)


@given(scores, st.data())
def test_replay_does_what_a_device_does(score: NDArray[np.float32], data: st.DataObject) -> None:
    exits = score.shape[1]
    # Thresholds that equal scores are the interesting ones.
    drawn = st.one_of(st.floats(0, 1), st.sampled_from(score.ravel().tolist()))
    thresholds = data.draw(st.lists(drawn, min_size=exits - 1, max_size=exits - 1))
    expected = [
        next((k for k, t in enumerate(thresholds, 1) if float(row[k - 1]) >= t), exits) for row in score
    ]
    assert replay(made(score), thresholds).tolist() == expected


def test_a_threshold_is_not_rounded_to_the_precision_of_scores() -> None:
    below = np.float32(0.9)
    assert float(below) < 0.9
    trace = made(np.array([[below, 1.0]], np.float32))
    assert replay(trace, (0.9,)).tolist() == [2]
    assert replay(trace, (float(below),)).tolist() == [1]


def test_the_operating_point_by_hand() -> None:
    trace = ExitTrace(
        np.array([[0.9, 1], [0.5, 1], [0.9, 1], [0.1, 1]], np.float32),
        np.array([[1, 2], [0, 2], [0, 1], [0, 0]], np.int16),
        np.array([1, 2, 1, 1], np.int16),
    )
    point = operating_point(trace, (0.8,), (0.25, 1.05))
    assert point.exits == (0.5, 0.5)
    assert point.accuracy == 0.5
    assert point.macs_share == pytest.approx(0.65)


def test_the_shipped_trace_gives_the_figures_of_its_manifest() -> None:
    manifest, trace = read_manifest(SHIPPED_BUNDLE), read_trace(SHIPPED_BUNDLE)
    assert trace.score.shape == (10_000, 4)
    assert operating_point(trace, manifest.thresholds, manifest.macs_shares) == manifest.operating_point
    assert tuple(trace.correct.mean(axis=0)) == pytest.approx(manifest.exit_accuracy)


def test_there_and_back(tmp_path: Path) -> None:
    trace = made(np.random.default_rng(1).random((50, 3), np.float32))
    write_trace(trace, tmp_path)
    again = read_trace(tmp_path)
    for name in ("score", "label", "truth"):
        np.testing.assert_array_equal(getattr(again, name), getattr(trace, name))
        assert getattr(again, name).dtype == getattr(trace, name).dtype


@pytest.mark.parametrize("thresholds", [(), (0.5,), (0.5, 0.5, 0.5)])
def test_the_wrong_number_of_thresholds(thresholds: tuple[float, ...]) -> None:
    trace = made(np.ones((2, 3), np.float32))
    with pytest.raises(ConfigError, match=f"3 exits need 2 thresholds, not {len(thresholds)}"):
        replay(trace, thresholds)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"cannot read .*trace\.npz.*rebuild or fetch"):
        read_trace(tmp_path)


@given(st.integers(0, 20_000), st.binary(min_size=1, max_size=64))
def test_damage_anywhere_in_the_file_never_escapes_as_another_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, noise: bytes
) -> None:
    folder = tmp_path_factory.mktemp("trace")
    write_trace(made(np.random.default_rng(1).random((500, 3), np.float32)), folder)
    data = bytearray((folder / TRACE_FILE).read_bytes())
    place %= len(data)
    data[place : place + len(noise)] = noise
    (folder / TRACE_FILE).write_bytes(data)
    try:
        read_trace(folder)
    except BundleError as error:
        assert "trace" in str(error)  # noqa: PT017 -- noise may also hit a byte that means nothing


@pytest.mark.parametrize("kept", [0, 1, 100, 1000])
def test_a_truncated_file(kept: int, tmp_path: Path) -> None:
    write_trace(made(np.random.default_rng(1).random((500, 3), np.float32)), tmp_path)
    path = tmp_path / TRACE_FILE
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BundleError, match="cannot read"):
        read_trace(tmp_path)


def test_arrays_that_would_have_to_be_unpickled_are_refused(tmp_path: Path) -> None:
    harmful = np.array([{"a": 1}], object)
    np.savez(tmp_path / TRACE_FILE, score=harmful, label=harmful, truth=harmful)
    with pytest.raises(BundleError, match="cannot read"):
        read_trace(tmp_path)


def test_arrays_that_do_not_belong_together(tmp_path: Path) -> None:
    ones = np.ones((4, 2), np.float32)
    labels = np.ones((4, 2), np.int16)
    truth = np.ones(4, np.int16)
    with pytest.raises(BundleError, match="do not belong together"):
        ExitTrace(ones, labels[:3], truth)
    with pytest.raises(BundleError, match="do not belong together"):
        ExitTrace(ones, labels, truth[:3])
    with pytest.raises(BundleError, match=r"expected \(samples, exits\)"):
        ExitTrace(ones[:0], labels[:0], truth[:0])
    with pytest.raises(BundleError, match="not finite"):
        ExitTrace(ones * np.float32(np.nan), labels, truth)
    np.savez(tmp_path / TRACE_FILE, score=labels, label=labels, truth=truth)
    with pytest.raises(BundleError, match="expected floating point numbers and integers"):
        read_trace(tmp_path)
    np.savez(tmp_path / TRACE_FILE, score=ones, label=labels)
    with pytest.raises(BundleError, match="truth"):
        read_trace(tmp_path)
