"""MDI-Exit as published: rules 1 and 2, each worker by what its neighbours report (arXiv 2408.05247)."""

from mqtt_mdi.core.exits import stays
from mqtt_mdi.core.offload import optional_target, required_target
from mqtt_mdi.core.strategies.strategy import Local, Strategy
from mqtt_mdi.core.types import Task


def keeps(worker: Local, task: Task) -> bool:
    """Rule 1; frames begin where they were admitted."""
    return task.stage == 1 or stays(
        input_length=len(worker.input),
        output_length=len(worker.output),
        output_threshold=worker.policy.output_threshold,
    )


def target(worker: Local, stage: int) -> str | None:
    """Rule 2; a stage that is not held here must leave, to the shortest wait."""
    holders = worker.holders(stage)
    if not holders:
        return None
    if stage not in worker.stages:
        return required_target(holders, rng=worker.rng).state.device
    chosen = optional_target(holders, output_length=len(worker.output), own_wait=worker.wait, rng=worker.rng)
    return chosen.state.device if chosen else None


STRATEGY = Strategy("MDI-Exit as published: each worker decides by its neighbours' queues", keeps, target)
