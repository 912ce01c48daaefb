"""Rule 1 of MDI-Exit: leave here, stay here, or perhaps leave for elsewhere."""

from random import Random

import pytest

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.exits import leaves, stays
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.types import DeviceState, Task
from mqtt_mdi.core.worker import Worker

T_O = 4


@pytest.mark.parametrize(
    ("score", "stage", "expected"),
    [
        (0.79, 1, False),
        (0.80, 1, True),
        (0.81, 1, True),
        (0.59, 2, False),
        (0.60, 2, True),
        (0.0, 3, True),
        (-5.0, 3, True),
    ],
)
def test_a_frame_leaves_at_its_threshold_or_at_the_last_exit(
    *, score: float, stage: int, expected: bool
) -> None:
    assert leaves(score, stage, (0.8, 0.6)) is expected


@pytest.mark.parametrize(
    ("input_length", "output_length", "expected"),
    [(0, 0, True), (0, T_O + 1, True), (1, T_O + 1, True), (1, T_O, False), (1, 0, False), (9, 0, False)],
)
def test_a_task_stays_with_an_empty_input_or_a_long_output_queue(
    *, input_length: int, output_length: int, expected: bool
) -> None:
    kept = stays(input_length=input_length, output_length=output_length, output_threshold=T_O)
    assert kept is expected


@pytest.mark.parametrize(
    ("leaves_here", "holds_next", "input_length", "output_length", "expected"),
    [
        (True, True, 0, 0, "exit"),
        (True, False, 9, 9, "exit"),
        (False, True, 0, 0, "input"),
        (False, True, 0, T_O + 1, "input"),
        (False, True, 1, T_O + 1, "input"),
        (False, True, 1, T_O, "output"),
        (False, True, 1, 0, "output"),
        (False, False, 0, 0, "output"),
        (False, False, 0, T_O + 1, "output"),
    ],
)
def test_where_the_next_task_goes(
    *, leaves_here: bool, holds_next: bool, input_length: int, output_length: int, expected: str
) -> None:
    policy = Policy(thresholds=(0.5, 0.5), output_threshold=T_O)
    worker = Worker(DeviceState("a", "boot-1"), policy, 3, Random(1))
    worker.handle(events.StagesReady(frozenset({1, 2} if holds_next else {1})), 0.0)
    waiting = [Task("cam", "0", "source", 1)]
    waiting += [Task("cam", f"in-{n}", "source", 1) for n in range(input_length)]
    waiting += [Task("cam", f"out-{n}", "source", 3) for n in range(output_length)]
    for task in waiting:
        worker.handle(events.TaskArrived(task), 0.0)
    assert (len(worker.input), len(worker.output)) == (input_length, output_length)
    score = 1.0 if leaves_here else 0.0
    orders = worker.handle(events.StageCompleted(waiting[0], 0, score, 0.1), 0.1)
    following = Task("cam", "0", "source", 2)
    places = {
        "exit": any(isinstance(order, effects.ReportOutcome) for order in orders),
        "input": following in worker.input or worker.running == following,
        "output": following in worker.output,
    }
    assert [place for place, there in places.items() if there] == [expected]
