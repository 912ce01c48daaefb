"""A device's shell, told messages as they come from a broker, without one."""

from collections.abc import Iterator

import pytest
from live import until

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sealed import read_sealed
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Echo
from mqtt_mdi.core.worker import Worker
from mqtt_mdi.engine.onnx import OnnxStage
from mqtt_mdi.runtime.broker_url import BrokerURL
from mqtt_mdi.runtime.device import Device, DeviceSettings
from mqtt_mdi.runtime.message import Message
from mqtt_mdi.wire.messages import DEVICE_STATE, POLICY

EARLY = read_manifest(SHIPPED_BUNDLE).stage_count - 1


class Shelled(Device):
    """A device that holds every stage of the shipped bundle; there is no broker at its address."""

    def __init__(self) -> None:
        broker = BrokerURL("127.0.0.1", 1)
        super().__init__(DeviceSettings(broker, "demo", "dev", "all", SHIPPED_BUNDLE), OnnxStage)

    def begin(self) -> None:
        self.runner.start()
        self._use(self.trust.open(read_sealed(SHIPPED_BUNDLE)))

        def loaded() -> bool:
            self._run_calls()
            return len(self.machine.stages) == EARLY + 1

        until(loaded)

    @property
    def machine(self) -> Worker:
        assert self.worker is not None
        return self.worker

    def obey(self, **fields: object) -> None:
        policy = Policy.model_validate({"version": 9, "thresholds": [0.5] * EARLY, **fields})
        self._take(Message(self.topics.policy, POLICY.encode(policy), 1, retain=True, mid=1))


@pytest.fixture
def device() -> Iterator[Shelled]:
    shelled = Shelled()
    shelled.begin()
    yield shelled
    shelled.connection.close(0.0)
    shelled.runner.stop()


@pytest.mark.parametrize(("retain", "measured"), [(False, True), (True, False)], ids=["fresh", "kept"])
def test_a_state_that_the_broker_kept_measures_no_link(
    device: Shelled, *, retain: bool, measured: bool
) -> None:
    state = DeviceState("other", "boot", echoes={"dev": Echo(device.now() - 1.0, 0.0)})
    payload = DEVICE_STATE.encode(state)
    device._take(Message(device.topics.device("other"), payload, 0, retain=retain, mid=0))
    assert (device.machine.neighbours["other"].delay is not None) is measured


def test_a_policy_with_stages_that_the_network_lacks_ends_no_device(device: Shelled) -> None:
    device.obey(placement={"dev": [9]})
    assert device.fault is None
    assert device.machine.counters["policies_refused"] == 1


def test_a_device_that_leaves_takes_no_stage_back(device: Shelled) -> None:
    device.drain()
    device.obey(placement={"dev": [1, 2]})
    assert device.machine.policy.version == 9
    assert device.machine.stages == frozenset()
