"""A task may come back to who sent it, when the other gave its stage up."""

from random import Random

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Task
from mqtt_mdi.core.worker import Worker


def test_a_task_handed_back_is_run() -> None:
    policy = Policy(thresholds=(0.5,))
    worker = Worker(DeviceState("a", "boot-a"), policy, 2, Random(1))
    worker.handle(events.StagesReady(frozenset({1})), 0.0)
    worker.handle(events.NeighbourReported(DeviceState("b", "boot-b", stages=(2,))), 0.0)
    task = Task("cam", "1", "source-1", 1)
    worker.handle(events.TaskArrived(task), 0.0)
    orders = worker.handle(events.StageCompleted(task, 0, 0.1, 0.01, 8), 0.1)
    sent = next(order.task for order in orders if isinstance(order, effects.SendTask))
    worker.handle(events.StagesReady(frozenset({1, 2})), 0.2)
    assert effects.RunStage(sent) in worker.handle(events.TaskArrived(sent), 0.3)
