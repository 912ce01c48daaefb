"""Rule 2 of MDI-Exit: whether and to whom a task is sent."""

from random import Random

import pytest

from mqtt_mdi.core.offload import SMOOTHING, Neighbour, optional_target, required_target, smooth
from mqtt_mdi.core.types import DeviceState


def neighbour(
    name: str = "b",
    *,
    queue: int = 0,
    running: int = 0,
    service: float = 0.1,
    delay: float | None = 0.0,
    unreported: int = 0,
) -> Neighbour:
    state = DeviceState(name, "boot", input_queue=queue, running=running, service_s=service)
    return Neighbour(state, 0.0, delay, unreported)


def chosen(*neighbours: Neighbour, output_length: int, own_wait: float, seed: int = 1) -> str | None:
    target = optional_target(neighbours, output_length=output_length, own_wait=own_wait, rng=Random(seed))
    return target.state.device if target else None


def test_expected_wait_counts_the_delay_the_engine_and_unreported_tasks() -> None:
    busy = neighbour(queue=3, running=1, service=0.1, delay=0.05, unreported=2)
    assert busy.backlog == 6
    assert busy.wait == pytest.approx(0.05 + 6 * 0.1)


def test_an_unmeasured_delay_counts_as_none() -> None:
    assert neighbour(queue=2, delay=None).wait == pytest.approx(0.2)


@pytest.mark.parametrize(("output_length", "expected"), [(3, None), (4, "b")])
def test_a_neighbour_is_considered_when_our_output_is_longer_than_its_input(
    output_length: int, expected: str | None
) -> None:
    # It would wait 0.3 s there and 1 s here.
    assert chosen(neighbour(queue=3), output_length=output_length, own_wait=1.0) == expected


def test_a_shorter_wait_there_decides_without_chance() -> None:
    # 0.1 + 2 * 0.1 = 0.3 s there, 0.31 s here: no seed may say no.
    assert {
        chosen(neighbour(queue=2, delay=0.1), output_length=9, own_wait=0.31, seed=seed)
        for seed in range(200)
    } == {"b"}


def test_a_longer_wait_there_leaves_it_to_chance() -> None:
    # 0.2 s here, 0.8 s there: sent with probability 1/4, within five standard deviations.
    rng = Random(1)
    slow = neighbour(queue=8)
    draws = 20_000
    sent = sum(optional_target([slow], output_length=9, own_wait=0.2, rng=rng) is slow for _ in range(draws))
    assert abs(sent - draws / 4) < 5 * (draws * 0.25 * 0.75) ** 0.5


def test_equal_waits_are_sent_for_certain() -> None:
    assert all(
        chosen(neighbour(queue=4, service=0.25), output_length=9, own_wait=1.0, seed=s) for s in range(200)
    )


def test_who_waits_for_nothing_sends_nothing() -> None:
    assert chosen(neighbour(queue=0), output_length=9, own_wait=0.0) is None
    assert chosen(neighbour(queue=1), output_length=9, own_wait=0.0) is None


def test_the_next_neighbour_is_tried() -> None:
    assert chosen(neighbour("full", queue=9), neighbour("free"), output_length=5, own_wait=1.0) == "free"


def test_a_task_that_must_leave_goes_where_it_waits_least() -> None:
    near = neighbour("near", queue=5, service=0.1, delay=0.1)
    far = neighbour("far", queue=1, service=0.1, delay=0.3)
    assert required_target([near, far], rng=Random(1)) is far
    assert required_target([near], rng=Random(1)) is near


def test_equal_neighbours_share_by_lot() -> None:
    rng = Random(1)
    twins = [neighbour("b"), neighbour("c")]
    first = sum(required_target(twins, rng=rng) is twins[0] for _ in range(10_000))
    assert abs(first - 5000) < 5 * 50


def test_smoothing_begins_with_the_first_sample() -> None:
    assert smooth(None, 2.0) == 2.0
    assert smooth(2.0, 3.0) == pytest.approx(2.0 + SMOOTHING)
