"""Plans: what holds for every system, and what is decided in cases with one right answer."""

from collections import Counter
from dataclasses import replace
from itertools import permutations
from math import inf

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqtt_mdi.bundle.trace import ExitTrace
from mqtt_mdi.core.system import Member, Pair, Plan, StageProfile, System
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.frontier import frontier
from mqtt_mdi.planning.placement import Search
from mqtt_mdi.planning.planner import Goal, plan
from mqtt_mdi.planning.reach import reach_shares

PATIENT = Search(time_limit_s=30.0)
NEVER = (2.0, 2.0)
HALF = (0.75, 0.5)
"""Half of TRACE's samples leave at exit 1, half of the others at exit 2."""

few = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def trace_of(samples: int = 400) -> ExitTrace:
    """Scores from 0 to 1, the same at each exit; the surer half of what an exit says is right."""
    score = np.repeat(np.linspace(0, 1, samples, dtype=np.float32)[:, None], 3, axis=1)
    label = (score > np.array([0.5, 0.25, 0.1])).astype(np.int16)
    score[:, 0] = score[:, 0] / 2 + 0.5
    return ExitTrace(score, label, np.ones(samples, np.int16))


TRACE = trace_of()
PROFILES = (StageProfile(100, 1000, 1), StageProfile(200, 4000, 2), StageProfile(400, 2000, 4))
SECONDS = (0.01, 0.02, 0.04)


def member(name: str, speed: float = 1.0, **more: object) -> Member:
    return Member(name, tuple(s / speed for s in SECONDS), **more)  # type: ignore[arg-type]


def mesh(*members: Member, link: float = inf) -> System:
    """Devices that are all linked; frames come in at the first."""
    first = replace(members[0], source=True)
    links = dict.fromkeys(permutations([each.device for each in members], 2), link)
    return System((first, *members[1:]), links, PROFILES)


def obeyed(system: System, made: Plan) -> System:
    """The system when every device has loaded what a plan says."""
    members = (replace(each, stages=frozenset(made.placement[each.device])) for each in system.members)
    return replace(system, members=tuple(members))


@st.composite
def systems(draw: st.DrawFn) -> System:
    """A few devices, some links between them, at least one source; the first can hold all stages."""
    names = [f"d{n}" for n in range(draw(st.integers(1, 4)))]
    members = tuple(
        Member(
            name,
            draw(st.tuples(*[st.floats(0.001, 0.1)] * 3)),
            memory=draw(st.one_of(st.none(), st.integers(7 if name == "d0" else 0, 9))),
            source=name == "d0" or draw(st.booleans()),
            stages=draw(st.sampled_from([frozenset(), frozenset({1}), frozenset({1, 2})])),
        )
        for name in names
    )
    some = st.one_of(st.none(), st.floats(1e4, 1e7), st.just(inf))
    drawn = {pair: draw(some) for pair in permutations(names, 2)}
    return System(members, {pair: rate for pair, rate in drawn.items() if rate}, PROFILES)


def loads(system: System, made: Plan) -> Counter[str | Pair]:
    """Seconds of each device and share of each link that a frame takes, by following the shares."""
    reach = reach_shares(TRACE, made.thresholds)
    by_name = {each.device: each for each in system.members}
    sources = [each.device for each in system.members if each.source]
    used: Counter[str | Pair] = Counter()
    here = {(source, 1): 1 / len(sources) for source in sources}
    while here:
        then: Counter[tuple[str, int]] = Counter()
        for (name, stage), mass in here.items():
            for to, share in made.shares.get(name, {}).get(stage, {}).items():
                moved = mass * share
                if to != name:
                    used[name, to] += moved * PROFILES[stage - 1].input_bytes / system.links[name, to]
                if stage not in made.placement[to]:
                    then[to, stage] += moved
                    continue
                used[to] += moved * by_name[to].seconds[stage - 1]
                used["done", str(stage)] += moved
                if stage < len(reach) and reach[stage - 1]:
                    then[to, stage + 1] += moved * reach[stage] / reach[stage - 1]
        here = {key: mass for key, mass in then.items() if mass > 1e-12}
    for stage, share in enumerate(reach, start=1):
        assert used.pop(("done", str(stage)), 0.0) == pytest.approx(share, abs=1e-5)
    return used


def check(system: System, made: Plan) -> None:
    assert set(made.placement) == system.names
    for each in system.members:
        needed = sum(PROFILES[k - 1].memory for k in made.placement[each.device])
        assert each.memory is None or needed <= each.memory
    assert {k for stages in made.placement.values() for k in stages} == {1, 2, 3}
    for name, by_stage in made.shares.items():
        for stage, shares in by_stage.items():
            assert sum(shares.values()) == pytest.approx(1)
            assert min(shares.values()) >= 1e-3
            assert all(to == name or (name, to) in system.links for to in shares)
            assert name not in shares or stage in made.placement[name]
    assert all(load * made.rate <= 1 + 1e-6 for load in loads(system, made).values())
    assert made.rate <= made.limit


@few
@given(systems(), st.sampled_from([NEVER, HALF, (0.5, 0.0), (0.9, 0.9)]))
def test_devices_and_links_can_do_what_the_shares_ask_for(
    system: System, thresholds: tuple[float, ...]
) -> None:
    try:
        made = plan(system, Goal(), TRACE, thresholds, PATIENT)
    except ConfigError:
        # The first device can do everything; only another source may have no way to it.
        assert any(each.source for each in system.members[1:])
        return
    check(system, made)
    idle = {
        (name, k) for name, stages in made.placement.items() for k in stages if not made.work[name][k - 1]
    }
    assert all(k in each.stages for each in system.members for name, k in idle if name == each.device)
    again = plan(system, Goal(), TRACE, thresholds, PATIENT)
    assert again == made
    settled = plan(obeyed(system, made), Goal(), TRACE, thresholds, PATIENT)
    assert settled.placement == made.placement, (settled, made)
    assert settled.rate == pytest.approx(made.rate, rel=0.01)


@few
@given(systems(), st.floats(0.1, 3.0))
def test_a_goal_is_reached_or_refused(system: System, part: float) -> None:
    """The rate asked for is a part of what comes without exits, or so much more that exits are needed."""
    system = replace(system, members=tuple(replace(m, source=m.device == "d0") for m in system.members))
    rate = part * plan(system, Goal(), TRACE, NEVER, PATIENT).rate
    points = frontier(TRACE, [profile.macs for profile in PROFILES])
    try:
        fast = plan(system, Goal("rate", rate), TRACE, NEVER, PATIENT)
    except ConfigError:
        assert plan(system, Goal(), TRACE, points[-1].thresholds, PATIENT).rate < rate
        return
    check(system, fast)
    assert fast.rate >= rate
    assert fast.accuracy in {point.accuracy for point in points}
    assert fast.accuracy is not None
    right = plan(system, Goal("accuracy", fast.accuracy), TRACE, NEVER, PATIENT)
    check(system, right)
    assert right.accuracy == fast.accuracy
    assert right.thresholds == fast.thresholds
    assert right.rate >= 0.95 * rate


def test_a_plan_in_every_detail() -> None:
    """a is a source without memory; b and c must share 7 bytes of stages: {1, 2} and {3} are the best."""
    system = mesh(member("a", memory=0), member("b", memory=3), member("c", memory=4))
    made = plan(system, Goal(), TRACE, NEVER)
    assert made.placement == {"a": (), "b": (1, 2), "c": (3,)}
    assert made.shares == {"a": {1: {"b": 1.0}}, "b": {2: {"b": 1.0}, 3: {"c": 1.0}}}
    assert made.rate == pytest.approx(25)
    assert made.limit == pytest.approx(25, rel=1e-3)
    assert made.thresholds == NEVER
    assert made.accuracy is None
    assert made.work["b"] == pytest.approx((25, 25, 0))
    assert made.work["c"] == pytest.approx((0, 0, 25))
    assert made.reason == "25.0 frames/s, the most possible; b gets stages 1,2, c gets stages 3"


def test_shares_follow_the_speeds() -> None:
    system = mesh(member("a", 1), member("b", 3))
    made = plan(obeyed(system, plan(system, Goal(), TRACE, NEVER)), Goal(), TRACE, NEVER)
    assert made.rate == pytest.approx(4 / 0.07, rel=1e-3)
    a, b = (sum(made.work[name][k] * SECONDS[k] for k in range(3)) for name in ("a", "b"))
    assert b == pytest.approx(3 * a, rel=1e-3)


def test_what_one_device_in_a_thousand_gets_is_left_out() -> None:
    system = mesh(member("a", 1e5), member("b", 1))
    made = plan(system, Goal(), TRACE, NEVER)
    assert made.shares == {"a": {k: {"a": 1.0} for k in (1, 2, 3)}}
    assert made.rate == pytest.approx(1e5 / 0.07)
    assert made.limit == pytest.approx(1e5 / 0.07, rel=1e-4)


def test_devices_without_stages_pass_tasks_on() -> None:
    devices = (member("a", memory=0, source=True), member("b", memory=0), member("c"))
    chain = System(devices, {("a", "b"): inf, ("b", "c"): inf}, PROFILES)
    made = plan(chain, Goal(), TRACE, NEVER)
    assert made.shares["a"] == {1: {"b": 1.0}}
    assert made.shares["b"] == {1: {"c": 1.0}}
    assert made.rate == pytest.approx(1 / 0.07)


def test_all_sources_are_served_alike() -> None:
    """b's frames must go over a link of 10 frames a second, a's need not."""
    devices = (member("a", 8, source=True), member("b", memory=0, source=True))
    system = System(devices, {("b", "a"): 10_000.0}, PROFILES)
    made = plan(system, Goal(), TRACE, NEVER)
    assert made.rate == pytest.approx(20)
    assert made.shares["b"] == {1: {"a": 1.0}}


def test_stages_stay_for_a_small_gain_and_move_for_a_large_one() -> None:
    system = mesh(member("a", memory=3), member("b", memory=7), member("c", 1.02, memory=4))
    held = {"a": (1,), "b": (3,), "c": (1, 2)}
    system = replace(
        system, members=tuple(replace(m, stages=frozenset(held[m.device])) for m in system.members)
    )
    made = plan(system, Goal(), TRACE, NEVER)
    better = plan(
        replace(system, members=tuple(replace(m, stages=frozenset()) for m in system.members)),
        Goal(),
        TRACE,
        NEVER,
    )
    assert made.placement != held
    assert made.rate > 1.03 * 25
    assert made.rate >= 0.97 * better.rate
    patient = plan(system, Goal(), TRACE, NEVER, keep=0.5)
    assert patient.placement == held
    assert patient.reason.endswith("no stage moves")


def test_a_device_that_joins_gets_stages_and_the_others_keep_theirs() -> None:
    two = mesh(member("a", memory=7), member("b", memory=7))
    first = plan(two, Goal(), TRACE, NEVER)
    three = mesh(*obeyed(two, first).members, member("c", 0.1, memory=7))
    made = plan(three, Goal(), TRACE, NEVER)
    assert made.placement["c"]
    assert all(made.placement[name] == first.placement[name] for name in ("a", "b"))
    assert made.rate == pytest.approx(2.1 / 0.07, rel=0.04)


def test_when_a_device_leaves_only_what_it_held_moves() -> None:
    devices = [member(f"d{n}", memory=7) for n in range(4)]
    held = [frozenset({1, 2}), frozenset({3}), frozenset({3}), frozenset({1, 3})]
    left = [replace(device, stages=stages) for device, stages in zip(devices[1:], held[1:], strict=True)]
    made = plan(mesh(*left), Goal(), TRACE, NEVER)
    loaded = {
        each.device: set(made.placement[each.device]) - each.stages
        for each in left
        if set(made.placement[each.device]) - each.stages
    }
    assert sum(map(len, loaded.values())) <= 2
    assert made.rate >= 0.97 * 3 / 0.07


@pytest.mark.parametrize(
    ("goal", "devices", "trace", "message"),
    [
        (Goal(), [member("a")], None, "no exit trace"),
        (Goal(), [member("a", memory=3)], TRACE, "stage 3 needs 4 bytes and fits on no device"),
        (Goal(), [member("a", memory=4)], TRACE, "do not fit: .* lack 3 bytes"),
        (
            Goal("accuracy", 0.95),
            [member("a")],
            TRACE,
            r"accuracy 0.95: the best this bundle reaches on its trace is 0.9000, 0.0500 short",
        ),
        (
            Goal("rate", 312.5),
            [member("a"), member("b")],
            TRACE,
            r"rate 312.5 frames/s: these devices reach 199.9 at accuracy 0.5000, 112.6 short",
        ),
    ],
)
def test_what_cannot_be_is_told_with_what_lacks(
    goal: Goal, devices: list[Member], trace: ExitTrace | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(mesh(*devices), goal, trace, NEVER)


def test_a_search_cut_short_ends_the_same_way_twice() -> None:
    system = mesh(*(member(f"d{n}", 1 + n % 3, memory=3 + n % 4) for n in range(8)), link=20_000.0)
    first, second = (plan(system, Goal(), TRACE, NEVER, Search(30.0, effort=1.0)) for _ in range(2))
    assert first == second
    assert first.rate < 0.99 * first.limit
    check(system, first)


def test_a_plan_without_time_says_so() -> None:
    system = mesh(*(member(f"d{n}", 1 + n % 3, memory=5) for n in range(12)))
    with pytest.raises(ConfigError, match="no placement found in 0 s: allow more time"):
        plan(system, Goal(), TRACE, NEVER, Search(time_limit_s=0.0))
