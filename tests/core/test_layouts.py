"""How strategies lay stages out over the devices that are there."""

from itertools import permutations

import pytest
from fleetwork import STAGE_BYTES, profiles
from hypothesis import given, settings
from hypothesis import strategies as st

from mqtt_mdi.core.strategies import pipeline
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.system import Member, System

STAGES = 3
EVERY = (1, 2, 3)


def system(*members: Member, stages: int = STAGES) -> System:
    """All may send to all."""
    pairs = permutations([member.device for member in members], 2)
    return System(members, dict.fromkeys(pairs, 1e9), profiles(stages))


def member(name: str, speed: float = 1.0, memory: int | None = None, *, source: bool = False) -> Member:
    seconds = tuple(profile.macs / 1e9 / speed for profile in profiles(STAGES))
    return Member(name, seconds, memory, source)


FLEET = system(member("s", source=True), member("b", 2.0), member("c", 3.0))


@pytest.mark.parametrize(
    ("strategy", "fleet", "expected"),
    [
        ("mdi-exit", FLEET, None),
        ("no-exit", FLEET, None),
        ("planner", FLEET, None),
        ("local", FLEET, {"s": EVERY, "b": (), "c": ()}),
        ("ddi", FLEET, {"s": EVERY, "b": EVERY, "c": EVERY}),
        (
            "ddi",
            system(
                member("s", source=True, memory=3 * STAGE_BYTES),
                member("b", memory=3 * STAGE_BYTES - 1),
                member("c"),
            ),
            {"s": EVERY, "b": (), "c": EVERY},
        ),
        # Stage 3 to the fastest, stage 2 to the next, stage 1 to who is idle.
        ("pipeline", FLEET, {"s": (1,), "b": (2,), "c": (3,)}),
        ("pipeline", system(member("s", source=True)), {"s": EVERY}),
        # A fast device alone does better than a slow one beside it, which then helps where most is to do.
        ("pipeline", system(member("s", source=True), member("b", 100.0)), {"s": (3,), "b": EVERY}),
        (
            "pipeline",
            system(member("s", memory=2 * STAGE_BYTES, source=True), member("b", 100.0, STAGE_BYTES)),
            {"s": (1, 2), "b": (3,)},
        ),
        ("pipeline", system(member("s", memory=0, source=True), member("b")), {"s": (), "b": EVERY}),
    ],
)
def test_how_stages_are_laid_out(
    strategy: str, fleet: System, expected: dict[str, tuple[int, ...]] | None
) -> None:
    arrange = STRATEGIES[strategy].arrange
    assert (arrange and arrange(fleet)) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1.0, 2.0, 8.0]), st.none() | st.integers(0, 400)), min_size=1, max_size=6
    )
)
def test_a_pipeline_fits_its_memory_and_leaves_out_no_stage_that_fits(
    devices: list[tuple[float, int | None]],
) -> None:
    members = [member(f"d{n}", *given, source=n == 0) for n, given in enumerate(devices)]
    placement = pipeline.arrange(system(*members))
    assert placement.keys() == {each.device for each in members}
    for each in members:
        if each.memory is not None:
            assert len(placement[each.device]) * STAGE_BYTES <= each.memory
    places = sum(STAGES if each.memory is None else each.memory // STAGE_BYTES for each in members)
    held = {stage for own in placement.values() for stage in own}
    assert len(held) == min(STAGES, places)


def test_a_pipeline_stays_where_tasks_can_get_to_and_back_from() -> None:
    ring = (member("s", source=True), member("b"), member("c"))
    whole = System(ring, {("s", "b"): 1e9, ("b", "c"): 1e9, ("c", "s"): 1e9}, profiles(STAGES))
    assert all(pipeline.arrange(whole).values())
    broken = System(ring[::2], {("c", "s"): 1e9}, profiles(STAGES))
    assert pipeline.arrange(broken) == {"s": EVERY, "c": ()}
