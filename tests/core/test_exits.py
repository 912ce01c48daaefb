"""Rule 1 of MDI-Exit: leave here, stay here, or perhaps leave for elsewhere."""

import pytest

from mqtt_mdi.core.exits import Next, after_stage, leaves

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
    ("leaves_here", "holds_next", "input_length", "output_length", "expected"),
    [
        (True, True, 0, 0, Next.EXIT),
        (True, False, 9, 9, Next.EXIT),
        (False, True, 0, 0, Next.INPUT),
        (False, True, 0, T_O + 1, Next.INPUT),
        (False, True, 1, T_O + 1, Next.INPUT),
        (False, True, 1, T_O, Next.OUTPUT),
        (False, True, 1, 0, Next.OUTPUT),
        (False, False, 0, 0, Next.OUTPUT),
        (False, False, 0, T_O + 1, Next.OUTPUT),
    ],
)
def test_where_the_next_task_goes(
    *, leaves_here: bool, holds_next: bool, input_length: int, output_length: int, expected: Next
) -> None:
    where = after_stage(
        leaves_here=leaves_here,
        holds_next=holds_next,
        input_length=input_length,
        output_length=output_length,
        output_threshold=T_O,
    )
    assert where is expected
