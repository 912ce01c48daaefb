"""The fluid bound against answers worked out by hand."""

from dataclasses import replace
from math import inf

import pytest
from cases import ALONE, device, problem

from mqtt_mdi.planning.fluid import fluid_bound, rate_limit
from mqtt_mdi.planning.programme import Programme

ALL = frozenset({1, 2, 3})


def test_one_device_is_as_fast_as_its_work_allows() -> None:
    bound = fluid_bound(problem(device("a")))
    assert bound.rate == bound.limit == pytest.approx(ALONE)
    assert bound.work["a"] == pytest.approx((ALONE, ALONE / 2, ALONE / 4))
    assert bound.flows == {}
    assert bound.placement == {"a": (1, 2, 3)}


def test_two_equal_devices_do_twice_as_much() -> None:
    assert fluid_bound(problem(device("a"), device("b"))).rate == pytest.approx(2 * ALONE)


def test_uneven_devices_add_their_speeds() -> None:
    speeds = {"a": 1, "b": 1, "c": 2, "d": 4, "e": 8}
    bound = fluid_bound(problem(*(device(name, speed) for name, speed in speeds.items())))
    assert bound.rate == pytest.approx(16 * ALONE, rel=1e-6)


def test_a_link_is_the_bottleneck() -> None:
    """b has stages 2 and 3 only: their inputs, half of the frames, need 4000 bytes each of 8000 a second."""
    held = (device("a", stages=frozenset({1})), device("b", stages=frozenset({2, 3})))
    bound = fluid_bound(problem(*held, link=8000.0))
    assert bound.rate == pytest.approx(8000 / 4000 / 0.5)
    assert bound.flows == {("a", "b"): pytest.approx((0, 2, 0))}


def test_every_links_bytes_count_at_the_broker() -> None:
    """Stage 2 on b, the others on a: 0.5 x 4000 there and 0.25 x 2000 back."""
    held = (device("a", stages=frozenset({1, 3})), device("b", stages=frozenset({2})))
    bound = fluid_bound(problem(*held, broker=25_000.0))
    assert bound.rate == pytest.approx(25_000 / (0.5 * 4000 + 0.25 * 2000))


def test_the_slowest_of_fixed_stages_decides() -> None:
    """a is full with stage 1 at 100 frames a second; b would take 1 / (0.5 x 0.02 / 4 + 0.25 x 0.04 / 4)."""
    held = (device("a", stages=frozenset({1})), device("b", 4, stages=frozenset({2, 3})))
    bound = fluid_bound(problem(*held))
    assert bound.rate == pytest.approx(100)
    assert sum(bound.work["b"]) == pytest.approx(75)


def test_raw_frames_may_be_shipped_or_not() -> None:
    devices = (device("a", stages=ALL), device("b", 9, stages=ALL))
    assert fluid_bound(problem(*devices)).rate == pytest.approx(10 * ALONE)
    kept = fluid_bound(problem(*devices, source_runs_stage_1=True))
    assert kept.rate == pytest.approx(100), "stage 1 takes a 0.01 s of each frame"
    assert kept.work["b"][0] == 0


def test_memory_forces_a_split() -> None:
    """500 and 400 bytes for stages of 100, 200, 400: {1, 2 or 3} beside {3} or {1, 2}, best with 0.02 s each.

    The stages cost 0.01 s each frame. 400 holds {3} or {1, 2}; 500 holds {1, 3} or {1, 2}: with {1, 3}
    and {1, 2} stage 1 is shared and each device has 0.015 s of work a frame.
    """
    bound = fluid_bound(problem(device("a", memory=500.0), device("b", memory=400.0)))
    assert bound.placement == {"a": (1, 3), "b": (1, 2)}
    assert bound.rate == bound.limit == pytest.approx(1 / 0.015)


def test_devices_that_hold_stages_are_left_alone() -> None:
    bound = fluid_bound(problem(device("a", stages=frozenset({1})), device("b", memory=600.0)))
    assert bound.placement == {"a": (1,), "b": (2, 3)}
    assert bound.rate == pytest.approx(1 / 0.02)


def test_what_nobody_reaches_is_still_placed() -> None:
    reach = (1.0, 0.5, 0.0)
    bound = fluid_bound(problem(device("a", memory=300.0), device("b", memory=400.0), reach=reach))
    assert bound.placement["a"] == (1, 2)
    assert 3 in bound.placement["b"]
    assert bound.rate == pytest.approx(1 / 0.02)


def test_several_sources_share_the_frames_as_suits_best() -> None:
    devices = (device("a", stages=ALL), device("b", 3, stages=ALL))
    bound = fluid_bound(problem(*devices, sources=("a", "b"), source_runs_stage_1=True))
    assert bound.rate == pytest.approx(4 * ALONE)
    assert bound.flows == {}


def test_tasks_pass_through_devices_on_their_way() -> None:
    devices = (device("a", stages=frozenset({1})), device("b", stages=frozenset()), device("c", stages=ALL))
    chain = {("a", "b"): 8000.0, ("b", "c"): 4000.0}
    bound = fluid_bound(problem(*devices, links=chain))
    assert bound.rate == pytest.approx(4, rel=1e-6), "1000 bytes raw is less than 0.5 x 4000"
    assert bound.flows["a", "b"] == pytest.approx(bound.flows["b", "c"])


def test_the_plan_sends_no_more_than_it_must() -> None:
    """b needs no help and a is a source: what can be kept is kept."""
    devices = (device("a", 8, stages=ALL), device("b", stages=frozenset({1})))
    bound = fluid_bound(problem(*devices, links={("a", "b"): 1e9, ("b", "a"): 1e9}))
    assert bound.rate == pytest.approx(8 * ALONE + 100 / 3, rel=1e-6)
    assert bound.flows["a", "b"] == pytest.approx((100, 0, 0), rel=1e-5)
    assert bound.flows["b", "a"] == pytest.approx((0, 50, 0), rel=1e-5)


def test_sources_may_have_to_take_in_equally_many() -> None:
    """b's way to a lets 10 frames a second pass, and a takes in no more then."""
    devices = (device("a", 9, stages=ALL), device("b", stages=frozenset()))
    links = {("b", "a"): 10_000.0}
    assert fluid_bound(problem(*devices, sources=("a", "b"), links=links)).rate == pytest.approx(9 * ALONE)
    even = problem(*devices, sources=("a", "b"), links=links, even_sources=True)
    assert fluid_bound(even).rate == pytest.approx(20)


def test_a_device_may_have_to_run_what_it_is_sent() -> None:
    """Frames reach c through b only. b may pass raw ones on, unless it holds stage 1: then it runs all."""
    given = (device("a", memory=0.0), device("b"), device("c", 9))
    links = {("a", "b"): 1e9, ("b", "c"): 1e9}
    held = (replace(given[0], stages=frozenset()), *(replace(each, stages=ALL) for each in given[1:]))
    assert fluid_bound(problem(*held, links=links)).rate == pytest.approx(10 * ALONE)
    assert fluid_bound(problem(*held, links=links, holders_run=True)).rate == pytest.approx(100)
    free = fluid_bound(problem(*given, links=links, holders_run=True))
    assert free.placement == {"a": (), "b": (), "c": (1, 2, 3)}
    assert free.rate == pytest.approx(9 * ALONE)
    assert free.limit == pytest.approx(free.rate, rel=1e-3)


def test_what_is_loaded_stays_unless_more_is_gained() -> None:
    """One of the two has to hold stage 3 and the other 1 and 2; which one makes no difference."""
    for name in ("a", "b"):
        loaded = (
            device(each, memory=400.0, loaded=frozenset({3} if each == name else {1, 2})) for each in "ab"
        )
        bound = fluid_bound(problem(*loaded, sources=("a", "b")))
        assert bound.placement[name] == (3,)
        assert bound.rate == pytest.approx(1 / 0.02)
        assert bound.limit >= bound.rate
    slow = device("a", memory=400.0, loaded=frozenset({1, 2}))
    fast = device("b", 2, memory=400.0, loaded=frozenset({3}))
    assert fluid_bound(problem(slow, fast, sources=("a", "b"))).placement == {"a": (3,), "b": (1, 2)}


@pytest.mark.parametrize("link", [1e12, inf])
def test_links_without_limit_are_no_rows(link: float) -> None:
    devices = (device("a", stages=frozenset()), device("b", stages=ALL))
    unlimited = problem(*devices, link=link)
    assert Programme(unlimited).loads.shape[0] == 2
    assert fluid_bound(unlimited).rate == pytest.approx(ALONE)


def test_a_quick_limit_is_the_bound_itself_where_nothing_is_to_be_placed() -> None:
    held = (device("a", stages=frozenset({1, 2})), device("b", stages=frozenset({3})))
    assert rate_limit(problem(*held)) == fluid_bound(problem(*held)).rate
