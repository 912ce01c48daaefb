"""Leases from measured answers, as RFC 6298 sets TCP's retransmission timer."""

import pytest

from mqtt_mdi.core.admission import ResponseTime


def test_without_a_measurement_the_policy_decides() -> None:
    assert ResponseTime().lease(2.0, 1) == 2.0


def test_the_first_measurement_sets_mean_and_half_of_it_as_deviation() -> None:
    response = ResponseTime()
    response.observe(1.0)
    assert response.lease(0.1, 1) == pytest.approx(1.0 + 4 * 0.5)


def test_later_measurements_move_deviation_by_a_quarter_and_mean_by_an_eighth() -> None:
    response = ResponseTime()
    response.observe(1.0)
    response.observe(2.0)
    deviation = 0.75 * 0.5 + 0.25 * abs(1.0 - 2.0)
    assert response.lease(0.1, 1) == pytest.approx(0.875 * 1.0 + 0.125 * 2.0 + 4 * deviation)


def test_a_steady_system_comes_down_to_the_policys_least() -> None:
    response = ResponseTime()
    for _ in range(200):
        response.observe(0.3)
    assert response.lease(0.1, 1) == pytest.approx(0.3)
    assert response.lease(1.0, 1) == 1.0


@pytest.mark.parametrize(("attempt", "factor"), [(1, 1), (2, 2), (3, 4), (7, 64), (8, 64), (100, 64)])
def test_each_attempt_doubles_it_up_to_a_limit(attempt: int, factor: int) -> None:
    assert ResponseTime().lease(0.5, attempt) == 0.5 * factor
