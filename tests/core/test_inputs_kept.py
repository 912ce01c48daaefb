"""Who drops an input knows that nothing else waits for it."""

from random import Random

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Task
from mqtt_mdi.core.worker import Worker


def test_a_frame_that_leaves_does_not_take_the_input_of_its_own_next_stage_along() -> None:
    """The next stage came from elsewhere while the one before it, delivered twice, still ran here."""
    worker = Worker(DeviceState("a", "boot-a"), Policy(thresholds=(0.9,)), 2, Random(1))
    worker.handle(events.StagesReady(frozenset({1, 2})), 0.0)
    first, second = Task("cam", "1", "source-1", 1, size=8), Task("cam", "1", "source-1", 2, size=8)
    worker.handle(events.TaskArrived(first), 0.0)
    worker.handle(events.TaskArrived(second), 0.1)
    worker.handle(events.PolicyChanged(Policy(version=1, thresholds=(0.5,))), 0.2)
    orders = worker.handle(events.StageCompleted(first, 0, 0.6, 0.01, 8), 0.3)
    assert [type(order) for order in orders] == [effects.ReportOutcome, effects.RunStage]
    worker.check()
