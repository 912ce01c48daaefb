"""Thresholds from the most accurate to the cheapest."""

import subprocess
import sys
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.trace import ExitTrace, operating_point, read_trace
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.frontier import Point, frontier
from mqtt_mdi.planning.reach import reach_shares

COST = (1.0, 2.0, 4.0)


def calibrated(samples: int, exits: int = 3, seed: int = 5) -> ExitTrace:
    """Exits of rising accuracy whose scores say, more or less, how often they are right."""
    generator = np.random.default_rng(seed)
    ease = generator.random((samples, 1)) + 0.1 * np.arange(exits)
    right = 1 / (1 + np.exp(1.5 - 5 * ease))
    score = np.clip(right + generator.normal(0, 0.05, (samples, exits)), 0, 1).astype(np.float32)
    label = (generator.random((samples, exits)) < right).astype(np.int16)
    return ExitTrace(score, label, np.ones(samples, np.int16))


def cheapest(points: tuple[Point, ...], accuracy: float) -> float:
    return min(point.cost for point in points if point.accuracy >= accuracy)


@settings(max_examples=30, deadline=None)
@given(
    exits=st.integers(1, 4),
    samples=st.integers(1, 60),
    seed=st.integers(0, 1000),
    cost=st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
)
def test_points_are_what_a_replay_says_and_none_is_beaten(
    exits: int, samples: int, seed: int, cost: list[float]
) -> None:
    trace = calibrated(samples, exits, seed)
    points = frontier(trace, cost[:exits])
    for point in points:
        replayed = operating_point(trace, point.thresholds, np.cumsum(cost[:exits]).tolist())
        assert point.accuracy == pytest.approx(replayed.accuracy)
        assert point.cost == pytest.approx(replayed.macs_share)
        assert point.reach == pytest.approx(reach_shares(trace, point.thresholds))
    for before, after in pairwise(points):
        assert after.cost < before.cost
        assert after.accuracy < before.accuracy
    assert points[0].accuracy >= trace.correct[:, -1].mean()
    assert points[-1].accuracy >= trace.correct[:, 0].mean()
    assert points[-1].cost == pytest.approx(cost[0])


def test_the_search_comes_near_to_trying_everything() -> None:
    trace = calibrated(300)
    levels = [np.quantile(trace.score[:, k], np.linspace(0, 1, 41)) for k in range(2)]
    spent = np.cumsum(COST).tolist()
    everything = [operating_point(trace, pair, spent) for pair in product(*levels)]
    points = frontier(trace, COST)
    for accuracy in np.arange(0.70, points[0].accuracy, 0.01):
        best = min(point.macs_share for point in everything if point.accuracy >= accuracy)
        assert cheapest(points, float(accuracy)) <= 1.02 * best


def test_a_threshold_for_each_exit_beats_one_for_all() -> None:
    trace, manifest = read_trace(SHIPPED_BUNDLE), read_manifest(SHIPPED_BUNDLE)
    cost = np.diff([0.0, *manifest.macs_shares]).tolist()
    points = frontier(trace, cost)
    uniform = [operating_point(trace, [t] * 3, manifest.macs_shares) for t in np.linspace(0.7, 0.98, 15)]
    ratios = [cheapest(points, one.accuracy) / one.macs_share for one in uniform]
    assert max(ratios) <= 1
    assert min(ratios) < 0.8


def test_early_exits_may_know_better_than_the_last() -> None:
    """The first exit is sure and right about half of the samples, the last right about the others only."""
    first, last = np.repeat([1, 0], 50), np.repeat([0, 1], 50)
    score = np.stack([np.repeat([0.9, 0.3], 50), np.ones(100)], axis=1).astype(np.float32)
    label = np.stack([first, last], axis=1).astype(np.int16)
    best = frontier(ExitTrace(score, label, np.ones(100, np.int16)), (1.0, 1.0))[0]
    assert best.accuracy == 1.0
    assert best.reach == (1.0, 0.5)
    assert best.cost == 1.5


def test_the_same_trace_gives_the_same_points() -> None:
    assert frontier(calibrated(500), COST) == frontier(calibrated(500), COST)


def test_costs_for_another_number_of_exits_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 exits, but costs are given for 2 stages"):
        frontier(calibrated(10), (1.0, 2.0))


def test_the_frontier_needs_no_scipy() -> None:
    without = "import sys; sys.modules['scipy'] = None; import mqtt_mdi.planning.problem"
    subprocess.run([sys.executable, "-c", f"{without}, mqtt_mdi.planning.frontier"], check=True)
