import numpy as np
import pytest

from mqtt_mdi.bundle.thresholds import NEVER, choose_thresholds
from mqtt_mdi.bundle.trace import ExitTrace, operating_point

SHARES = (0.2, 0.5, 1.1)


def calibrated(samples: int = 1000) -> ExitTrace:
    """Three exits of rising accuracy whose scores say how often they are right."""
    generator = np.random.default_rng(5)
    ease = generator.random((samples, 1))
    score = np.clip(ease * 0.5 + np.array([0.5, 0.6, 0.7]), 0, 1).astype(np.float32)
    label = np.where(generator.random((samples, 3)) < score, 1, 0).astype(np.int16)
    return ExitTrace(score, label, np.ones(samples, np.int16))


@pytest.mark.parametrize("loss", [0.0, 0.01, 0.05])
def test_the_accuracy_asked_for_is_kept_and_work_is_saved(loss: float) -> None:
    trace = calibrated()
    point = operating_point(trace, choose_thresholds(trace, SHARES, loss), SHARES)
    assert point.accuracy >= trace.correct[:, -1].mean() - loss
    assert point.macs_share < SHARES[-1]


def test_more_loss_allows_less_work() -> None:
    trace = calibrated()
    work = [
        operating_point(trace, choose_thresholds(trace, SHARES, loss), SHARES).macs_share
        for loss in (0.0, 0.02, 0.2, 1.0)
    ]
    assert work == sorted(work, reverse=True)
    assert work[-1] == pytest.approx(SHARES[0])


def test_exits_that_are_always_wrong_are_never_taken() -> None:
    right = np.ones(100, np.int16)
    label = np.stack([0 * right, 0 * right, right], axis=1)
    trace = ExitTrace(np.full((100, 3), 0.99, np.float32), label, right)
    assert choose_thresholds(trace, SHARES, 0.0) == (NEVER, NEVER)


def test_one_exit_needs_no_thresholds() -> None:
    trace = ExitTrace(np.ones((3, 1), np.float32), np.ones((3, 1), np.int16), np.ones(3, np.int16))
    assert choose_thresholds(trace, (1.0,), 0.1) == ()
