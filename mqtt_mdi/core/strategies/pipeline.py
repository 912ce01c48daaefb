"""A static pipeline: fixed workers for each stage, between them the broker's shared subscriptions."""

from collections.abc import Iterable

from mqtt_mdi.core.strategies.strategy import ANY, Local, Placement, Strategy
from mqtt_mdi.core.system import Pair, System
from mqtt_mdi.core.types import Task


def keeps(worker: Local, task: Task) -> bool:
    """A task stays where nobody else could run it."""
    return not worker.holders(task.stage)


def target(worker: Local, stage: int) -> str | None:
    """Whoever of the stage's workers the broker picks.

    The broker knows nothing of who may send to whom: where that is restricted, the neighbours that hold the
    stage take turns, or those that there are pass the task on.
    """
    holders = worker.holders(stage)
    allowed = worker.policy.neighbours.get(worker.name)
    if allowed is None:
        return ANY if holders else None
    if holders:
        near = [holder.state.device for holder in holders]
    elif any(stage in held for held in worker.policy.placement.values()):
        near = [name for name in allowed if name in worker.neighbours]
    else:
        near = []
    return min(near, key=lambda name: worker.routed[stage, name], default=None)


def arrange(system: System) -> Placement:
    """Each stage, the heaviest first, to the device that is done soonest with it added.

    Devices left over join those of the stage that has most to do. Those that tasks of a source cannot get
    to and back from have no part in it.
    """
    within = _within_reach(system)
    held: dict[str, list[int]] = {member.device: [] for member in system.members if member.device in within}
    room = {m.device: float("inf") if m.memory is None else m.memory for m in system.members}
    busy = dict.fromkeys(held, 0.0)
    seconds = {member.device: member.seconds for member in system.members}

    def give(stage: int) -> None:
        needed = system.profiles[stage - 1].memory
        fitting = [device for device in held if room[device] >= needed]
        if fitting:
            best = min(fitting, key=lambda device: (busy[device] + seconds[device][stage - 1], device))
            held[best].append(stage)
            room[best] -= needed
            busy[best] += seconds[best][stage - 1]

    stages = range(1, len(system.profiles) + 1)
    for stage in sorted(stages, key=lambda k: -system.profiles[k - 1].macs):
        give(stage)
    for device in [device for device, own in held.items() if not own]:
        fitting = [k for k in stages if room[device] >= system.profiles[k - 1].memory]
        held[device] += [max(fitting, key=lambda k: _load(k, held, seconds))] if fitting else []
    return {member.device: tuple(sorted(held.get(member.device, ()))) for member in system.members}


def _within_reach(system: System) -> set[str]:
    """The devices that tasks can get to from a source, and from there back to it."""
    sources = {member.device for member in system.members if member.source}
    onward = _reached(sources, system.links)
    return onward & _reached(sources, [(b, a) for a, b in system.links])


def _reached(start: set[str], pairs: Iterable[Pair]) -> set[str]:
    reached, links = set(start), list(pairs)
    while more := {b for a, b in links if a in reached} - reached:
        reached |= more
    return reached


def _load(stage: int, held: dict[str, list[int]], seconds: dict[str, tuple[float, ...]]) -> float:
    """Seconds that one frame costs at a stage, however many work there in turn."""
    rates = sum(1 / seconds[device][stage - 1] for device, own in held.items() if stage in own)
    return 1 / rates if rates else float("inf")


STRATEGY = Strategy(
    "A static pipeline: fixed workers for each stage, picked in turn by the broker", keeps, target, arrange
)
