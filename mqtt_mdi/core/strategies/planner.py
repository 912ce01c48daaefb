"""The planner's side at the workers: follow the shares, correct by expected delay."""

from collections.abc import Mapping

from mqtt_mdi.core.strategies import mdi_exit
from mqtt_mdi.core.strategies.strategy import Local, Strategy
from mqtt_mdi.core.types import Task

_NOWHERE: Mapping[int, Mapping[str, float]] = {}


def keeps(worker: Local, task: Task) -> bool:
    """Whether this worker is next in its own shares; without any to follow, rule 1."""
    shares, waits = _options(worker, task.stage)
    if not shares:
        return mdi_exit.keeps(worker, task)
    if worker.name in shares:
        waits[worker.name] = worker.wait
    return bool(waits) and _next(worker, task.stage, shares, waits) == worker.name


def target(worker: Local, stage: int) -> str | None:
    """The other device that is next in the shares; without any to follow, rule 2."""
    shares, waits = _options(worker, stage)
    if waits:
        return _next(worker, stage, shares, waits)
    own = worker.name in shares and stage in worker.stages
    return None if own else mdi_exit.target(worker, stage)


def _options(worker: Local, stage: int) -> tuple[Mapping[str, float], dict[str, float]]:
    """The shares of a stage, and the seconds a task would wait at each other device they name.

    Such a device holds the stage, or passes its tasks on by shares of its own.
    """
    policy = worker.policy
    shares = policy.shares.get(worker.name, _NOWHERE).get(stage, {})
    allowed = policy.neighbours.get(worker.name, shares)
    waits = {}
    for name in shares:
        neighbour = worker.neighbours.get(name)
        if neighbour is None or name not in allowed or neighbour.backlog >= policy.queue_limit:
            continue
        if stage in neighbour.state.stages or stage in policy.shares.get(name, _NOWHERE):
            waits[name] = neighbour.wait
    return shares, waits


def _next(worker: Local, stage: int, shares: Mapping[str, float], waits: Mapping[str, float]) -> str:
    """Who lies farthest behind its share, among those whose wait is not much longer than the shortest."""
    longest = min(waits.values()) + worker.policy.planning.patience_s
    near = [device for device, wait in waits.items() if wait <= longest]
    total = 1 + sum(worker.routed[stage, device] for device in near)
    whole = sum(shares[device] for device in near) or 1.0
    return max(near, key=lambda device: total * shares[device] / whole - worker.routed[stage, device])


STRATEGY = Strategy(
    "Our own: the coordinator solves for placement and shares, workers follow and correct",
    keeps,
    target,
    planned=True,
)
