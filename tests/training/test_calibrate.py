import numpy as np
import pytest

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.calibrate import calibration_error, fit_temperature


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return np.asarray(e / e.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found(truth: float) -> None:
    generator = np.random.default_rng(1)
    logits = generator.normal(0, 3, (20_000, 5))
    odds = softmax(logits / truth).cumsum(axis=1)
    labels = (generator.random((20_000, 1)) > odds[:, :-1]).sum(axis=1)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(truth, rel=0.05)
    scores = softmax(logits / found)
    assert calibration_error(scores.max(axis=1), scores.argmax(axis=1) == labels) < 0.02


def test_temperatures_have_limits() -> None:
    logits = np.eye(4) * 5
    assert 0.05 <= fit_temperature(logits, np.arange(4)) < 0.2
    assert fit_temperature(logits, (np.arange(4) + 1) % 4) == pytest.approx(20)


def test_nothing_to_calibrate_on() -> None:
    with pytest.raises(ConfigError, match="hold some out"):
        fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64))
    with pytest.raises(ConfigError, match="finite logits"):
        fit_temperature(np.full((2, 3), np.nan), np.zeros(2, np.int64))


def test_calibration_error_by_hand() -> None:
    assert calibration_error(np.array([1.0, 1.0, 0.0]), np.array([True, True, False])) == 0
    # One bin of two answers at 0.9 with one right, one of two at 0.5 with one right.
    scores = np.array([0.9, 0.9, 0.5, 0.5])
    assert calibration_error(scores, np.array([True, False, True, False])) == pytest.approx(0.2)
