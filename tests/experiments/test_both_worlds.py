"""The simulator against a real broker with emulated boards: the same rates, and churn survived in both."""

import pytest

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE
from mqtt_mdi.experiments.churn import FAULTS, churn_live, churn_simulated
from mqtt_mdi.experiments.parity import compare, slower
from mqtt_mdi.experiments.systems import TOPOLOGIES
from mqtt_mdi.planning.solve import solver
from mqtt_mdi.runtime.broker import mosquitto_program

SOLVE = solver(SHIPPED_BUNDLE)
SYSTEMS = {system.name: system for system in TOPOLOGIES}
SLOW = 0.4
"""Of the boards' usual speed, so that what the machine itself takes weighs little."""

mosquitto = pytest.mark.skipif(mosquitto_program() is None, reason="no mosquitto: apt-get install mosquitto")


@pytest.mark.alone
@mosquitto
@pytest.mark.parametrize("name", ["2 nodes", "3-node mesh", "5-node mesh"])
def test_a_real_broker_admits_within_a_tenth_of_what_the_simulator_says(name: str) -> None:
    compared = compare(slower(SYSTEMS[name], SLOW), SHIPPED_BUNDLE, SOLVE, seconds=12)
    assert compared.report.tally.failed == compared.report.tally.duplicates == 0
    assert compared.ratio == pytest.approx(1, abs=0.1)


def test_simulated_devices_die_and_return_and_all_is_well_within_five_seconds() -> None:
    churn = churn_simulated(SHIPPED_BUNDLE, SOLVE)
    assert churn.admitted == churn.answered > 5000
    assert (churn.failed, churn.doubled, churn.lost) == (0, 0, 0)
    assert all(phase.recovered_s is not None and phase.recovered_s <= 5 for phase in churn.phases)


def test_real_devices_are_killed_and_return_and_every_frame_is_answered_once() -> None:
    churn = churn_live(SHIPPED_BUNDLE, phase_s=8)  # several times what a process takes to come up
    assert churn.admitted == churn.answered > 500
    assert (churn.failed, churn.doubled, churn.lost) == (0, 0, 0)
    reasons = " ".join(reason for _, reason in churn.decisions)
    for device, what in FAULTS:
        assert f"{device} {'left' if what == 'dies' else 'joined'}" in reasons
