"""MDI-Exit's Algorithm 4: thresholds follow the load."""

from random import Random

import pytest
from fleetwork import profiles

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import ADAPT, Coordinator
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Adaptation, Policy
from mqtt_mdi.core.thresholds import HIGHEST, next_threshold
from mqtt_mdi.core.types import DeviceState

RULE = Adaptation(rule="adaptive", low=10, high=30, much_higher=1.5, little_higher=1.1, lower=0.5, least=0.2)


@pytest.mark.parametrize(
    ("threshold", "backlog", "expected"),
    [(0.4, 9, 0.6), (0.4, 10, 0.44), (0.4, 29, 0.44), (0.4, 30, 0.2), (0.3, 99, 0.2), (0.8, 0, HIGHEST)],
)
def test_three_zones_between_two_bounds(threshold: float, backlog: int, expected: float) -> None:
    assert next_threshold(threshold, backlog, RULE) == pytest.approx(expected)


def coordinator(rule: Adaptation) -> Coordinator:
    return Coordinator(
        Policy(version=1, thresholds=(0.4, 0.8), adaptation=rule), profiles(3), Tally(), Random(1)
    )


def source_with(tasks: int) -> events.NeighbourReported:
    return events.NeighbourReported(DeviceState("source-1", "boot-1", role="source", input_queue=tasks))


def test_a_full_source_lowers_every_threshold() -> None:
    machine = coordinator(RULE)
    machine.handle(source_with(50), 0.0)
    machine.handle(events.NeighbourReported(DeviceState("device-1", "boot-1", input_queue=0)), 0.0)
    orders = machine.handle(events.TimerFired(ADAPT), 1.0)
    assert machine.policy.thresholds == (0.2, 0.4)
    assert machine.policy.version == 2
    assert effects.PublishPolicy(machine.policy, "load: 50 tasks queued") in orders
    assert effects.SetTimer(ADAPT, 1.0 + RULE.period_s) in orders


def test_nothing_is_published_when_nothing_changes() -> None:
    machine = coordinator(RULE)
    machine.handle(source_with(50), 0.0)
    for _ in range(9):
        machine.handle(events.TimerFired(ADAPT), 1.0)
    version = machine.policy.version
    assert machine.policy.thresholds == (0.2, 0.2)
    assert machine.handle(events.TimerFired(ADAPT), 2.0) == [effects.SetTimer(ADAPT, 2.0 + RULE.period_s)]
    assert machine.policy.version == version


@pytest.mark.parametrize("rule", [Adaptation(), RULE])
def test_fixed_or_without_a_source_thresholds_stay(rule: Adaptation) -> None:
    machine = coordinator(rule)
    if rule.rule == "fixed":
        machine.handle(source_with(50), 0.0)
    machine.handle(events.TimerFired(ADAPT), 1.0)
    assert machine.policy.thresholds == (0.4, 0.8)
