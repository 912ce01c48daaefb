"""The coordinator: one policy, the books, and who is alive."""

from collections import Counter
from fractions import Fraction
from math import ceil
from random import Random

import numpy as np
import pytest
from fleetwork import profiles
from hypothesis import given
from hypothesis import strategies as st

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import (
    ADAPT,
    LATENCIES_KEPT,
    PLAN,
    WINDOW,
    WINDOW_S,
    Coordinator,
    Effect,
    exit_counts,
    quantile,
)
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import LATEST_VERSION, Planning, Policy
from mqtt_mdi.core.types import DeviceState, Result, Window
from mqtt_mdi.wire.messages import POLICY

STAGES = 3


def coordinator(**policy: object) -> Coordinator:
    given = {"version": 4, "thresholds": [0.8, 0.6], **policy}
    return Coordinator(Policy.model_validate(given), profiles(STAGES), Tally(), Random(1))


def patch(machine: Coordinator, **changes: object) -> list[Effect]:
    return machine.handle(events.PatchRequested(changes, request="r"), 0.0)


def close(machine: Coordinator, now: float) -> effects.CloseWindow:
    [closed] = [
        order
        for order in machine.handle(events.TimerFired(WINDOW), now)
        if isinstance(order, effects.CloseWindow)
    ]
    return closed


def answered(frame: int, stage: int = 1, latency_ms: float = 10.0) -> Result:
    return Result("cam", str(frame), "ok", label=1, exit_stage=stage, latency_ms=latency_ms)


def test_it_starts_with_its_policy_and_its_timers() -> None:
    machine = coordinator()
    assert machine.handle(events.Started(), 5.0) == [
        effects.PublishPolicy(machine.policy, "start"),
        effects.SetTimer(WINDOW, 5.0 + WINDOW_S),
        effects.SetTimer(ADAPT, 5.0 + machine.policy.adaptation.period_s),
        effects.SetTimer(PLAN, 5.0 + machine.policy.planning.interval_s),
    ]


def test_a_good_patch_is_published_with_the_next_version() -> None:
    machine = coordinator()
    published, answer = patch(machine, thresholds=[0.9, 0.7], placement={"a": [1, 2]})
    expected = Policy(version=5, thresholds=(0.9, 0.7), placement={"a": (1, 2)})
    assert published == effects.PublishPolicy(expected, "policy/set")
    assert answer == effects.AnswerPatch("r", 5)
    assert machine.policy == expected


def test_null_brings_the_default_back() -> None:
    machine = coordinator(window=7)
    patch(machine, window=None)
    assert machine.policy.window == Policy(thresholds=()).window


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"thresholds": [0.9]}, "thresholds: 1 values, this network has 2 early exits"),
        ({"thresholds": None}, "thresholds: Field required"),
        ({"thresholds": "high"}, "thresholds: Input should be a valid array"),
        ({"thresholds": [0.9, "x"]}, "thresholds.1: Input should be a valid number"),
        ({"placement": {"a": [1, 4, 5]}}, "placement.a: stages [4, 5], this network has 3"),
        ({"strategy": "tea"}, "strategy: tea is not one of mdi-exit, planner"),
        ({"strategy": "no spaces"}, "strategy: String should match pattern"),
        ({"planning": {"goal": "rate"}}, "planning: Value error, goal rate needs a value for rate"),
        ({"shares": {"a": {"1": {"b": 2}}}}, "shares.a.1.b: Input should be less than or equal to 1"),
        (
            {"thresholds": [-0.5, 0.2], "adaptation": {"rule": "adaptive"}},
            "adaptation.rule: adaptive needs thresholds from 0 to 1, got [-0.5]",
        ),
        ({"lease_s": -1}, "lease_s: Input should be greater than 0"),
        ({"lease_s": 0, "window": 0, "tea": 1}, "tea: Extra inputs are not permitted"),
        ({"version": 9}, "version: given by the coordinator, leave it out"),
    ],
)
def test_a_bad_patch_is_answered_with_the_reason_and_changes_nothing(
    changes: dict[str, object], reason: str
) -> None:
    machine = coordinator()
    before = machine.policy
    [answer] = patch(machine, **changes)
    assert isinstance(answer, effects.AnswerPatch)
    assert (answer.request, answer.version) == ("r", 4)
    assert answer.reason is not None
    assert reason in answer.reason
    assert machine.policy is before


def test_a_retained_policy_that_is_newer_is_adopted() -> None:
    machine = coordinator()
    newer = Policy(version=9, thresholds=(0.1, 0.2))
    assert machine.handle(events.PolicyChanged(newer), 0.0) == [effects.PublishPolicy(newer, "retained")]
    assert machine.policy == newer


def test_a_retained_policy_that_is_older_or_our_own_is_left() -> None:
    machine = coordinator(placement={"a": [1]})
    assert machine.handle(events.PolicyChanged(Policy(version=3, thresholds=(0.1, 0.2))), 0.0) == []
    ours = POLICY.decode(POLICY.encode(machine.policy))
    assert machine.handle(events.PolicyChanged(ours), 0.0) == []
    assert machine.policy.thresholds == (0.8, 0.6)


def test_another_policy_under_our_version_is_one_under_the_next() -> None:
    machine = coordinator()
    [order] = machine.handle(events.PolicyChanged(Policy(version=4, thresholds=(0.1, 0.2))), 0.0)
    assert order == effects.PublishPolicy(machine.policy, "retained")
    assert machine.policy == Policy(version=5, thresholds=(0.1, 0.2))


@pytest.mark.parametrize("thresholds", [(0.1,), (0.1, 0.2)])
def test_no_retained_policy_uses_up_the_versions(thresholds: tuple[float, ...]) -> None:
    machine = coordinator()
    last = Policy(version=LATEST_VERSION, thresholds=thresholds)
    [order] = machine.handle(events.PolicyChanged(last), 0.0)
    assert isinstance(order, effects.PublishPolicy)
    assert (order.policy.version, order.policy.thresholds) == (4, (0.8, 0.6))


@pytest.mark.parametrize(
    ("timer", "periods"),
    [(ADAPT, {"adaptation": {"period_s": 0.2}}), (PLAN, {"planning": {"interval_s": 0.2}})],
)
def test_a_period_that_changes_begins_anew(timer: str, periods: dict[str, object]) -> None:
    machine = coordinator(adaptation={"period_s": 3600}, planning={"interval_s": 3600})
    machine.handle(events.Started(), 0.0)
    orders = machine.handle(events.PatchRequested(periods, None), 10.0)
    assert [order for order in orders if isinstance(order, effects.SetTimer)] == [
        effects.SetTimer(timer, 10.2)
    ]
    retained = machine.policy.model_copy(update={"version": 9, "planning": Planning(interval_s=7.0)})
    assert effects.SetTimer(PLAN, 17.0) in machine.handle(events.PolicyChanged(retained), 10.0)


def test_a_retained_policy_of_another_network_is_outvoted() -> None:
    machine = coordinator()
    [order] = machine.handle(events.PolicyChanged(Policy(version=9, thresholds=(0.1,))), 0.0)
    assert order == effects.PublishPolicy(machine.policy, "replaces a policy of another network")
    assert (machine.policy.version, machine.policy.thresholds) == (10, (0.8, 0.6))


def test_devices_that_outlived_another_database_are_overtaken() -> None:
    machine = coordinator()
    machine.handle(events.Started(), 0.0)
    machine.handle(events.NeighbourReported(DeviceState("a", "boot", policy_version=57)), 0.1)
    policy = machine.policy.model_copy(update={"version": 58})
    told = effects.PublishPolicy(policy, "devices ran a later version")
    assert told in machine.handle(events.TimerFired(WINDOW), 1.0)
    assert machine.policy == policy
    again = machine.handle(events.TimerFired(WINDOW), 2.0)
    assert not [order for order in again if isinstance(order, effects.PublishPolicy)]


def test_no_device_uses_up_the_versions() -> None:
    machine = coordinator()
    claimed = DeviceState("a", "boot", policy_version=LATEST_VERSION - 1)
    machine.handle(events.NeighbourReported(claimed), 0.1)
    machine.handle(events.TimerFired(WINDOW), 1.0)
    assert machine.policy.version == 4


def test_a_device_is_recorded_when_it_comes_changes_and_goes() -> None:
    machine = coordinator()

    def told(**fields: object) -> list[Effect]:
        fields = {"boot": "b1", "stages": (1,), **fields}
        return machine.handle(events.NeighbourReported(DeviceState("a", **fields)), 0.0)  # type: ignore[arg-type]

    first = DeviceState("a", "b1", stages=(1,))
    assert told() == [effects.RecordDevice(first)]
    assert told(input_queue=5, counters={"arrived": 9}) == []
    assert len(told(stages=(1, 2))) == 1
    assert len(told(boot="b2")) == 1
    [gone] = told(online=False, boot="b2", stages=())
    # What it held last is worth knowing, its last will does not say.
    assert gone == effects.RecordDevice(DeviceState("a", "b2", online=False, stages=(1,)))
    assert len(told(boot="b2")) == 1


def test_an_unknown_device_may_be_gone_from_the_start() -> None:
    machine = coordinator()
    gone = DeviceState("a", "b1", online=False)
    assert machine.handle(events.NeighbourReported(gone), 0.0) == [effects.RecordDevice(gone)]


def test_a_last_will_marks_the_device_offline() -> None:
    machine = coordinator()
    machine.handle(events.NeighbourReported(DeviceState("a", "b1")), 0.0)
    lost = events.NeighbourLost("a")
    assert machine.handle(lost, 1.0) == [effects.RecordDevice(DeviceState("a", "b1", online=False))]
    assert machine.handle(lost, 1.1) == []
    assert machine.handle(events.NeighbourLost("stranger"), 1.2) == []


def test_silence_marks_a_device_offline() -> None:
    machine = coordinator(silence_s=3.0)
    for name in ("a", "b"):
        machine.handle(events.NeighbourReported(DeviceState(name, "b1")), 0.0)
    machine.handle(events.NeighbourReported(DeviceState("b", "b1")), 2.0)
    assert close(machine, 3.0).devices_online == 2
    orders = machine.handle(events.TimerFired(WINDOW), 4.0)
    assert effects.RecordDevice(DeviceState("a", "b1", online=False)) in orders
    assert not machine.devices["a"].online
    assert close(machine, 4.5).devices_online == 1


def test_windows_hold_what_they_brought_and_totals_everything() -> None:
    machine = coordinator()
    machine.handle(events.Started(), 0.0)
    failed = Result("cam", "9", "failed", reason="no answer", latency_ms=9000.0)
    stored = events.ResultsStored(
        (answered(1, 1, 10.0), answered(2, 3, 30.0), answered(3, 1, 20.0), failed),
        duplicates=2,
        graded=(True, False, True),
    )
    machine.handle(stored, 0.5)
    first = close(machine, 1.0)
    assert first.window == Window(1.0, 3, 1, 2, 3, 2, (2, 0, 1), 20.0, 30.0)
    machine.handle(events.ResultsStored((answered(4, 2, 5.0),)), 1.5)
    second = close(machine, 2.5)
    assert second.window == Window(1.5, 1, 0, 0, 0, 0, (0, 1, 0), 5.0, 5.0)
    assert second.totals == Window(0.0, 4, 1, 2, 3, 2, (2, 1, 1), None, None)
    assert close(machine, 3.5).window == Window(1.0, exits=(0, 0, 0))


def test_a_truth_told_anew_counts_in_the_totals() -> None:
    machine = coordinator()
    machine.handle(events.ResultsStored((answered(1),), graded=(False,)), 0.5)
    assert close(machine, 1.0).totals.correct == 0
    machine.handle(events.ResultsStored(corrected=1), 1.5)
    closed = close(machine, 2.0)
    assert (closed.totals.graded, closed.totals.correct, closed.window.correct) == (1, 1, 0)


def test_totals_go_on_from_the_database() -> None:
    before = Tally(answered=10, exits=Counter({1: 10}))
    machine = Coordinator(Policy(thresholds=(0.8, 0.6)), profiles(STAGES), before, Random(1))
    machine.handle(events.ResultsStored((answered(1),)), 0.0)
    closed = close(machine, 1.0)
    assert (closed.totals.answered, closed.totals.exits) == (11, (11, 0, 0))
    assert closed.window.seconds == 0.0


def test_the_window_timer_is_set_again() -> None:
    assert effects.SetTimer(WINDOW, 3.0 + WINDOW_S) in coordinator().handle(events.TimerFired(WINDOW), 3.0)


def test_a_long_windows_latencies_are_a_fair_sample_of_bounded_size() -> None:
    machine = coordinator()
    many = 4 * LATENCIES_KEPT
    machine.handle(events.ResultsStored(tuple(answered(i, latency_ms=float(i)) for i in range(many))), 0.0)
    window = close(machine, 1.0).window
    assert window.answered == many
    # The median of a uniform sample: within five standard errors of the true one.
    assert window.latency_p50_ms is not None
    assert abs(window.latency_p50_ms - many / 2) < 5 * many / 2 / LATENCIES_KEPT**0.5


def test_an_unknown_timer_does_nothing() -> None:
    assert coordinator().handle(events.TimerFired("tea"), 0.0) == []


def test_exit_counts_name_every_exit() -> None:
    assert exit_counts(Counter({1: 5, 3: 2}), 4) == (5, 0, 2, 0)


def test_the_quantile_of_nothing_is_nothing() -> None:
    assert quantile([], 0.5) is None


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=60), st.sampled_from([0.0, 0.25, 0.5, 0.95, 1.0]))
def test_a_quantile_is_the_least_value_that_enough_others_do_not_exceed(
    values: list[float], share: float
) -> None:
    enough = ceil(Fraction(str(share)) * len(values))
    least = min(v for v in values if sum(other <= v for other in values) >= enough)
    assert quantile(values, share) == least


@given(st.lists(st.integers(0, 100), min_size=1, max_size=60), st.sampled_from([0.25, 0.5, 0.75]))
def test_quantiles_are_numpys_inverted_distribution(values: list[int], share: float) -> None:
    assert quantile(values, share) == np.quantile(values, share, method="inverted_cdf")
