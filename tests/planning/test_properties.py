"""What must hold of the bound for every system."""

from dataclasses import replace
from itertools import chain, combinations, permutations, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mqtt_mdi.errors import ConfigError
from mqtt_mdi.planning.fluid import Bound, Search, fluid_bound, rate_limit
from mqtt_mdi.planning.problem import Device, Problem

EXACT = Search(time_limit_s=20.0, gap=0.0, effort=1e9)
NEARLY = 1 - 1e-5

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def problems(draw: st.DrawFn, *, free: bool, most_devices: int = 4, most_stages: int = 4) -> Problem:
    """Systems where the first device is a source; it or another has all stages unless placement is free."""
    count, stages = draw(st.integers(1, most_devices)), draw(st.integers(1, most_stages))
    names = [f"d{n}" for n in range(count)]
    every = frozenset(range(1, stages + 1))
    seconds = st.tuples(*[st.floats(0.001, 0.1)] * stages)
    # Whole bytes, so that memory is often just enough.
    memory = st.one_of(st.none(), st.integers(0, 4 * stages))
    held = st.frozensets(st.sampled_from(sorted(every)))
    devices = [
        Device(
            name,
            draw(seconds),
            memory=draw(memory) if free else None,
            stages=None if free else draw(held),
        )
        for name in names
    ]
    if not free:
        lucky = draw(st.integers(0, count - 1))
        devices[lucky] = replace(devices[lucky], stages=every)
    shares = sorted(draw(st.lists(st.floats(0, 1), min_size=stages - 1, max_size=stages - 1)), reverse=True)
    return Problem(
        devices=tuple(devices),
        sources=(names[0],),
        reach=(1.0, *(round(share, 3) for share in shares)),
        input_bytes=draw(st.tuples(*[st.floats(0, 1e4)] * stages)),
        stage_bytes=tuple(float(size) for size in draw(st.tuples(*[st.integers(1, 4)] * stages))),
        links={pair: draw(st.floats(1e4, 1e7)) for pair in permutations(names, 2)},
        broker=draw(st.one_of(st.none(), st.floats(1e4, 1e7))),
    )


def rate(problem: Problem) -> float:
    """λ*, nought where nothing can be processed."""
    try:
        return fluid_bound(problem, EXACT).rate
    except ConfigError:
        return 0.0


@few
@given(problems(free=False))
def test_never_below_one_device_that_holds_all(problem: Problem) -> None:
    bound = fluid_bound(problem).rate
    for device in problem.devices:
        alone = 1 / sum(s * seconds for s, seconds in zip(problem.reach, device.seconds, strict=True))
        if device.name not in problem.sources:
            way = min(problem.links["d0", device.name], problem.broker or float("inf"))
            alone = min(alone, way / max(problem.input_bytes[0], 1e-9))
        if device.stages == frozenset(range(1, problem.stage_count + 1)):
            assert bound >= alone * NEARLY


@few
@given(st.one_of(problems(free=False), problems(free=True, most_devices=3)))
def test_better_means_lets_through_no_less(problem: Problem) -> None:
    now = rate(problem)
    first, *others = problem.devices
    faster = replace(first, seconds=tuple(s / 2 for s in first.seconds))
    roomier = replace(first, memory=None if first.memory is None else first.memory + 3)
    wider = {pair: 2 * link for pair, link in problem.links.items()}
    assert rate(replace(problem, devices=(faster, *others))) >= now * NEARLY
    assert rate(replace(problem, devices=(roomier, *others))) >= now * NEARLY
    assert rate(replace(problem, links=wider)) >= now * NEARLY
    assert rate(replace(problem, broker=None)) >= now * NEARLY
    assert rate(replace(problem, source_runs_stage_1=True)) <= now / NEARLY


def check_plan(problem: Problem, bound: Bound) -> None:
    """Nothing gets lost, and nobody does more than it can."""
    near = bound.rate * 1e-5 + 1e-3
    for device in problem.devices:
        name, work = device.name, bound.work[device.name]
        assert sum(x * s for x, s in zip(work, device.seconds, strict=True)) <= 1 + 1e-5
        placed = bound.placement[name]
        if device.stages is None and device.memory is not None:
            assert sum(problem.stage_bytes[k - 1] for k in placed) <= device.memory
        for k, share in enumerate(problem.reach):
            assert work[k] == 0 or k + 1 in placed
            inward = sum(rates[k] for (_, to), rates in bound.flows.items() if to == name)
            outward = sum(rates[k] for (by, _), rates in bound.flows.items() if by == name)
            before = problem.reach[k - 1] if k else 1.0
            taken_in = bound.rate if name in problem.sources else 0.0
            made = taken_in if k == 0 else work[k - 1] * share / before if before else 0.0
            assert made + inward == pytest.approx(work[k] + outward, abs=near)
    carried = {
        pair: sum(r * size for r, size in zip(rates, problem.input_bytes, strict=True))
        for pair, rates in bound.flows.items()
    }
    assert all(carried[pair] <= problem.links[pair] * (1 + 1e-5) for pair in carried)
    assert problem.broker is None or sum(carried.values()) <= problem.broker * (1 + 1e-5)
    for k, share in enumerate(problem.reach):
        assert sum(work[k] for work in bound.work.values()) == pytest.approx(bound.rate * share, abs=near)
        assert any(k + 1 in stages for stages in bound.placement.values())


@few
@given(st.one_of(problems(free=False), problems(free=True)))
def test_the_plan_conserves_frames_and_keeps_to_its_means(problem: Problem) -> None:
    try:
        bound = fluid_bound(problem, EXACT)
    except ConfigError:
        # Given placements always have a device with all stages, and every two devices are linked.
        assert problem.devices[0].stages is None
        return
    assert bound.limit >= bound.rate
    assert rate_limit(problem) >= bound.rate * NEARLY
    check_plan(problem, bound)


@settings(max_examples=15, deadline=None)
@given(problems(free=True, most_devices=2, most_stages=3))
def test_the_free_placement_is_the_best_of_all(problem: Problem) -> None:
    stages = range(1, problem.stage_count + 1)
    subsets = list(chain.from_iterable(combinations(stages, size) for size in range(len(stages) + 1)))
    best = 0.0
    for held in product(subsets, repeat=len(problem.devices)):
        try:
            devices = tuple(
                replace(device, stages=frozenset(some))
                for device, some in zip(problem.devices, held, strict=True)
            )
            placed = replace(problem, devices=devices)
        except ConfigError:
            continue  # more than the memory of a device
        if set().union(*held) == set(stages):
            best = max(best, rate(placed))
    assert rate(problem) == pytest.approx(best, rel=1e-4)
