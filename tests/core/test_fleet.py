"""What the coordinator knows of devices and links: measured, or expected where nothing was measured."""

import pytest
from fleetwork import profiles

from mqtt_mdi.core.fleet import CONGESTED_S, FORGET_S, UNLIMITED, USUAL_PACE_S, Fleet, drift
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Member, System
from mqtt_mdi.core.types import DeviceState, Echo

POLICY = Policy(thresholds=(0.5, 0.5))
PROFILES = profiles(3)
"""Stages of one, two and three million multiply-adds."""


def fleet(*states: DeviceState) -> Fleet:
    machine = Fleet(PROFILES)
    for state in states:
        machine.hear(state, 0.0)
    return machine


def seconds(machine: Fleet) -> dict[str, tuple[float, ...]]:
    return {member.device: member.seconds for member in machine.system(POLICY).members}


# Devices


def test_a_device_is_known_by_what_it_tells_while_it_is_online() -> None:
    machine = fleet(
        DeviceState("b", "1", role="source", memory=700, stages=(1, 3, 9)), DeviceState("a", "1", stages=(2,))
    )
    a, b = machine.system(POLICY).members
    assert (a.device, a.memory, a.source, a.stages) == ("a", None, False, frozenset({2}))
    # A stage that this network lacks is none of ours.
    assert (b.device, b.memory, b.source, b.stages) == ("b", 700, True, frozenset({1, 3}))
    machine.hear(DeviceState("b", "1", online=False), 1.0)
    assert machine.system(POLICY).names == {"a"}


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({1: 0.01, 2: 0.5, 3: 0.03}, (0.01, 0.5, 0.03)),
        # 5 million multiply-adds in 0.05 s: 0.01 s for the million of stage 1.
        ({2: 0.02, 3: 0.03}, (0.01, 0.02, 0.03)),
        ({1: 0.004}, (0.004, 0.008, 0.012)),
        # Together 0.04 s for 4 million.
        ({1: 0.005, 3: 0.035}, (0.005, 0.02, 0.035)),
        # Nothing takes no time, and no such stage exists.
        ({1: 0.0, 2: 0.02, 8: 9.0}, (0.01, 0.02, 0.03)),
    ],
)
def test_stage_times_are_measured_or_estimated_by_the_devices_pace(
    measured: dict[int, float], expected: tuple[float, ...]
) -> None:
    found = seconds(fleet(DeviceState("a", "1", service_by_stage=measured)))["a"]
    assert found == pytest.approx(expected)


def test_who_has_run_nothing_is_expected_to_keep_the_usual_pace() -> None:
    states = [
        DeviceState(name, "1", service_by_stage={1: s}) for name, s in zip("abc", (1, 2, 9), strict=True)
    ]
    assert seconds(fleet(*states, DeviceState("new", "1")))["new"] == pytest.approx((2, 4, 6))
    assert seconds(fleet(DeviceState("new", "1")))["new"] == pytest.approx(
        tuple(USUAL_PACE_S * profile.macs for profile in PROFILES)
    )


# Links


def test_only_pairs_that_may_send_are_linked() -> None:
    machine = fleet(*(DeviceState(name, "1") for name in "abc"))
    assert set(machine.system(POLICY).links.values()) == {UNLIMITED}
    assert len(machine.system(POLICY).links) == 6
    some = Policy(thresholds=(0.5, 0.5), neighbours={"a": ("b", "z"), "b": ()})
    assert machine.system(some).links.keys() == {("a", "b"), ("c", "a"), ("c", "b")}


class Line:
    """A link from a to b: a reports its delay, b a little later what arrived by its own clock."""

    def __init__(self) -> None:
        self.fleet = Fleet(PROFILES)
        self.now = 0.0
        self.received = 0
        self.boot = {"a": 1, "b": 1}
        self.second(0.01)

    def second(self, delay: float | None, arrived: int = 0, seconds: float = 1.0) -> float:
        """Some time, with that delay at its end and so many bytes over the link in it; the capacity then."""
        self.now += seconds
        self.received += arrived
        delays = {} if delay is None else {"b": delay}
        self.fleet.hear(DeviceState("a", f"{self.boot['a']}", stamp=self.now, delays=delays), self.now)
        echoes = {"a": Echo(0.0, 0.0, self.received), "stranger": Echo(0.0, 0.0, 5)}
        self.fleet.hear(DeviceState("b", f"{self.boot['b']}", stamp=50 + self.now, echoes=echoes), self.now)
        return self.capacity

    @property
    def capacity(self) -> float:
        return self.fleet.system(POLICY).links["a", "b"]


FULL = 0.01 + CONGESTED_S + 0.01


def test_what_arrives_says_nothing_of_a_link_with_room() -> None:
    line = Line()
    for delay in (0.01, 0.02, 0.01 + CONGESTED_S, None):
        assert line.second(delay, 5_000) == UNLIMITED


def test_a_full_link_carries_what_arrives() -> None:
    line = Line()
    assert line.second(0.01) == UNLIMITED
    assert line.second(FULL, 8_000, seconds=2.0) == 4_000
    assert line.second(FULL, 9_000) == pytest.approx(4_000 + 0.2 * 5_000)
    assert line.fleet.system(POLICY).links["b", "a"] == UNLIMITED


def test_a_long_way_is_full_at_three_times_its_delay() -> None:
    line = Line()
    line.boot["a"] += 1  # forget the delay of 0.01 s
    line.second(0.1)
    line.second(0.1)
    assert line.second(0.29, 1_000) == UNLIMITED
    assert line.second(0.31, 1_000) == 1_000


def test_a_delay_without_traffic_is_not_the_links_fault() -> None:
    line = Line()
    line.second(0.01)
    assert line.second(FULL, 0) == UNLIMITED


def test_a_limit_is_raised_when_more_arrives_and_kept_when_less_does() -> None:
    line = Line()
    line.second(0.01)
    line.second(FULL, 4_000)
    assert line.second(0.02, 1_000) == 4_000
    assert line.second(0.02, 6_000) == 6_000
    assert line.second(0.02, 3_000) == 6_000


def test_a_limit_long_not_felt_is_tried_again() -> None:
    line = Line()
    line.second(0.01)
    line.second(FULL, 4_000)
    assert line.second(0.01, 1_000, seconds=FORGET_S) == 4_000
    line.second(FULL, 4_000)
    assert line.second(0.01, 1_000, seconds=FORGET_S) == pytest.approx(4_000)
    assert line.second(0.01, 1_000, seconds=1.0) == UNLIMITED


def test_a_way_that_stays_longer_is_not_full_for_ever() -> None:
    line = Line()
    line.second(0.01)
    assert line.second(0.2, 1_000) == 1_000
    for _ in range(2 * int(FORGET_S) + 5):
        line.second(0.2, 1_000)
    assert line.capacity == UNLIMITED


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_new_start_of_either_end_forgets_the_link(who: str) -> None:
    line = Line()
    line.second(0.01)
    line.second(FULL, 4_000)
    line.boot[who] += 1
    line.received = 0 if who == "b" else line.received
    assert line.second(0.01) == UNLIMITED
    # Its first report only says where to count from.
    assert line.second(0.01, 10) == UNLIMITED
    assert line.second(FULL, 500) == 500


@pytest.mark.parametrize("who", ["a", "b"])
def test_who_leaves_takes_the_links_along(who: str) -> None:
    line = Line()
    line.second(0.01)
    line.second(FULL, 4_000)
    line.fleet.hear(DeviceState(who, "1", online=False), line.now)
    assert line.second(0.01) == UNLIMITED


def test_a_clock_that_stands_or_runs_back_measures_nothing() -> None:
    line = Line()
    line.second(0.01)
    assert line.second(FULL, 4_000, seconds=0.0) == UNLIMITED
    assert line.second(FULL, 4_000, seconds=-0.5) == UNLIMITED


# Drift


def system(links: dict[tuple[str, str], float] | None = None, **of: tuple[float, ...]) -> System:
    return System(tuple(Member(name, own) for name, own in of.items()), links or {}, PROFILES)


PLANNED = system({("a", "b"): UNLIMITED, ("b", "a"): 2e5}, a=(0.01, 0.02, 0.03), b=(0.01, 0.02, 0.03))
PLACED = {"a": (1, 2), "b": (2,)}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (PLANNED, None),
        (system(a=(0.012, 0.024, 0.03), b=(0.01, 0.02, 0.03)), None),
        (
            system(a=(0.013, 0.02, 0.03), b=(0.01, 0.02, 0.03)),
            "a takes 13 ms for stage 1, 10 ms were planned",
        ),
        (
            system(a=(0.01, 0.02, 0.03), b=(0.01, 0.0123456, 0.03)),
            "b takes 12.3 ms for stage 2, 20 ms were planned",
        ),
        # Nobody works on these.
        (system(a=(0.01, 0.02, 9.0), b=(9.0, 0.02, 9.0)), None),
        (system({("b", "a"): 2.4e5}, a=(0.01, 0.02), b=(0.01, 0.02)), None),
        (
            system({("b", "a"): 1e5}, a=(0.01, 0.02), b=(0.01, 0.02)),
            "b to a carries 100 kB/s, 200 kB/s were planned",
        ),
        (
            system({("a", "b"): 123456.0}, a=(0.01, 0.02), b=(0.01, 0.02)),
            "a to b carries 123 kB/s, any amount were planned",
        ),
        (
            system({("b", "a"): UNLIMITED}, a=(0.01, 0.02), b=(0.01, 0.02)),
            "b to a carries any amount, 200 kB/s were planned",
        ),
    ],
)
def test_what_changed_by_more_than_a_quarter_is_named(now: System, expected: str | None) -> None:
    assert drift(PLANNED, now, PLACED, 0.25) == expected


def test_a_fraction_of_a_millisecond_is_noise() -> None:
    planned = system(a=(0.0002, 0.0002))
    assert drift(planned, system(a=(0.0006, 0.0001)), PLACED, 0.25) is None
    assert drift(planned, system(a=(0.0008, 0.0002)), PLACED, 0.25) is not None
