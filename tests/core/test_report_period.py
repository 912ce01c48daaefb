"""A device speaks often enough not to be taken for dead, whatever the policy says."""

from random import Random

from mqtt_mdi.core import events
from mqtt_mdi.core.effects import SetTimer
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState
from mqtt_mdi.core.worker import REPORT, Worker


def policy(version: int, report_s: float, silence_s: float) -> Policy:
    return Policy(version=version, thresholds=(), report_interval_s=report_s, silence_s=silence_s)


def test_it_looks_at_least_three_times_before_silence_is_death() -> None:
    machine = Worker(DeviceState("a", "boot-1"), policy(1, 10.0, 3.0), 1, Random(1))
    assert SetTimer(REPORT, 1.0) in machine.handle(events.Started(), 0.0)


def test_a_period_that_changes_begins_anew() -> None:
    machine = Worker(DeviceState("a", "boot-1"), policy(1, 60.0, 600.0), 1, Random(1))
    machine.handle(events.Started(), 0.0)
    assert machine.handle(events.PolicyChanged(policy(2, 60.0, 3.0)), 5.0) == [SetTimer(REPORT, 6.0)]
    assert machine.handle(events.PolicyChanged(policy(3, 0.5, 3.0)), 6.0) == [SetTimer(REPORT, 6.5)]
    assert machine.handle(events.PolicyChanged(policy(4, 0.5, 9.0)), 6.1) == []
