"""MDI-Exit's Algorithm 3: the source paces admission by its own queues."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.admission import LONGEST_INTERVAL_S, next_interval
from mqtt_mdi.core.policy import Admission, Policy
from mqtt_mdi.core.source import ADAPT, ADMIT, Effect, Source
from mqtt_mdi.core.types import FrameKey

RULE = Admission(rule="paced", low=10, high=30, much_shorter=0.5, little_shorter=0.9, longer=1.5)


@pytest.mark.parametrize(
    ("backlog", "factor"), [(0, 0.5), (9, 0.5), (10, 0.9), (29, 0.9), (30, 1.5), (1000, 1.5)]
)
def test_three_zones(backlog: int, factor: float) -> None:
    assert next_interval(1.0, backlog, RULE) == factor


@given(st.floats(0, 1e9), st.integers(0, 10**6))
def test_the_interval_has_bounds(interval: float, backlog: int) -> None:
    assert RULE.least_interval_s <= next_interval(interval, backlog, RULE) <= LONGEST_INTERVAL_S


def paced(**change: object) -> Source:
    policy = Policy.model_validate(
        {"thresholds": [0.5], "admission": RULE.model_copy(update={"first_interval_s": 1.0, **change})}
    )
    return Source("source-1", policy, 2)


def submitted(orders: list[Effect]) -> int:
    return sum(isinstance(order, effects.SubmitTask) for order in orders)


def test_one_frame_an_interval() -> None:
    source = paced()
    first = source.handle(events.FrameArrived(FrameKey("cam", "1"), 10), 0.0)
    assert submitted(first) == 1
    assert effects.SetTimer(ADAPT, RULE.period_s) in first
    second = source.handle(events.FrameArrived(FrameKey("cam", "2"), 10), 0.1)
    assert submitted(second) == 0
    assert effects.SetTimer(ADMIT, 1.0) in second
    assert submitted(source.handle(events.TimerFired(ADMIT), 1.0)) == 1


def test_a_short_queue_admits_faster() -> None:
    source = paced()
    for n in range(3):
        source.handle(events.FrameArrived(FrameKey("cam", str(n)), 10), 0.0)
    assert effects.ObserveBacklog() in source.handle(events.TimerFired(ADAPT), 0.5)
    source.handle(events.BacklogObserved(0), 0.5)
    source.handle(events.TimerFired(ADMIT), 1.0)
    assert effects.SetTimer(ADMIT, 1.5) in source.handle(events.TimerFired("other"), 1.1)


def test_an_empty_store_teaches_nothing() -> None:
    """Without frames the queues are short at any pace; a pause must not end in a flood."""
    source = paced()
    source.handle(events.Started(), 0.0)
    for step in range(50):
        source.handle(events.BacklogObserved(0), float(step))
    source.handle(events.FrameArrived(FrameKey("cam", "1"), 10), 100.0)
    orders = source.handle(events.FrameArrived(FrameKey("cam", "2"), 10), 100.0)
    orders += source.handle(events.FrameArrived(FrameKey("cam", "3"), 10), 100.0)
    assert submitted(orders) == 1


def test_a_policy_can_begin_and_end_it() -> None:
    source = Source("source-1", Policy(thresholds=(0.5,)), 2)
    began = source.handle(events.PolicyChanged(Policy(version=1, thresholds=(0.5,), admission=RULE)), 5.0)
    assert effects.SetTimer(ADAPT, 5.0 + RULE.period_s) in began
    slower = RULE.model_copy(update={"period_s": 60.0})
    told = source.handle(events.PolicyChanged(Policy(version=2, thresholds=(0.5,), admission=slower)), 5.5)
    assert told == [effects.SetTimer(ADAPT, 65.5)]
    source.handle(events.PolicyChanged(Policy(version=3, thresholds=(0.5,))), 6.0)
    assert source.handle(events.BacklogObserved(0), 6.1) == []
    orders = [
        order
        for n in range(5)
        for order in source.handle(events.FrameArrived(FrameKey("cam", str(n)), 10), 7.0)
    ]
    assert submitted(orders) == 5
