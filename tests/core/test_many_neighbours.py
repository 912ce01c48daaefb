"""A device among more others than one message can tell of."""

from random import Random

from mqtt_mdi.core import events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import MOST_LINKS, DeviceState, Echo
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.wire.messages import DEVICE_STATE


def test_a_state_tells_of_those_known_longest() -> None:
    machine = Worker(DeviceState("a", "boot-1"), Policy(thresholds=()), 1, Random(1))
    names = [f"d{number}" for number in range(MOST_LINKS + 6)]
    for name in names:
        state = DeviceState(name, "boot-1", echoes={"a": Echo(0.0, 0.0)})
        machine.handle(events.NeighbourReported(state), 1.0)
    told = DEVICE_STATE.decode(DEVICE_STATE.encode(machine.state(2.0)))
    assert list(told.echoes) == list(told.delays) == names[:MOST_LINKS]
