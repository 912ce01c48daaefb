"""Data-distributed inference: whole networks everywhere, raw frames shared out, nothing handed on."""

from mqtt_mdi.core.offload import required_target
from mqtt_mdi.core.strategies.strategy import Local, Placement, Strategy, room_for_all
from mqtt_mdi.core.system import System
from mqtt_mdi.core.types import Task


def keeps(worker: Local, task: Task) -> bool:
    """A frame stays where it is begun; it is begun where it waits least."""
    others = worker.holders(task.stage) if task.stage == 1 else []
    return all(worker.wait <= neighbour.wait for neighbour in others)


def target(worker: Local, stage: int) -> str | None:
    """The device with the shortest wait."""
    holders = worker.holders(stage)
    return required_target(holders, rng=worker.rng).state.device if holders else None


def arrange(system: System) -> Placement:
    """The whole network wherever it fits."""
    every = tuple(range(1, len(system.profiles) + 1))
    return {member.device: every if room_for_all(member, system) else () for member in system.members}


STRATEGY = Strategy(
    "Data-distributed: every device has the whole network, raw frames are shared out", keeps, target, arrange
)
