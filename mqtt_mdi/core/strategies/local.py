"""No distribution: the source's own device runs every stage."""

from mqtt_mdi.core.strategies.strategy import Local, Placement, Strategy
from mqtt_mdi.core.system import System
from mqtt_mdi.core.types import Task


def keeps(_worker: Local, _task: Task) -> bool:
    """Everything stays."""
    return True


def target(_worker: Local, _stage: int) -> None:
    """Nothing leaves."""


def arrange(system: System) -> Placement:
    """Every stage on each source, nothing elsewhere."""
    every = tuple(range(1, len(system.profiles) + 1))
    return {member.device: every if member.source else () for member in system.members}


STRATEGY = Strategy("The source's device alone runs the whole network", keeps, target, arrange)
