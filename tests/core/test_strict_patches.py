"""A patch says what it means: no text for numbers, no truth values for counts."""

from random import Random

import pytest
from fleetwork import profiles

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import Coordinator
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Policy


@pytest.mark.parametrize(
    "patch", [{"window": "64"}, {"window": True}, {"thresholds": ["0.9"]}, {"thresholds": [True]}]
)
def test_values_of_another_type_are_refused(patch: dict[str, object]) -> None:
    machine = Coordinator(Policy(version=1, thresholds=(0.5,)), profiles(2), Tally(), Random(1))
    (answer,) = machine.handle(events.PatchRequested(patch), 0.0)
    assert isinstance(answer, effects.AnswerPatch)
    assert answer.reason is not None
    assert answer.reason.startswith(next(iter(patch)))
    assert machine.policy.version == 1
