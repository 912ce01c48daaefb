"""MDI-Exit, Algorithm 1: leave here, go on here, or go on elsewhere (arXiv 2408.05247)."""

from collections.abc import Sequence
from enum import Enum


class Next(Enum):
    """Where a frame goes after a stage."""

    EXIT = "exit"
    INPUT = "input"
    OUTPUT = "output"


def leaves(score: float, stage: int, thresholds: Sequence[float]) -> bool:
    """Whether a frame leaves after `stage`: C_k(d) >= T_k, or k is the last stage."""
    return stage > len(thresholds) or score >= thresholds[stage - 1]


def after_stage(
    *, leaves_here: bool, holds_next: bool, input_length: int, output_length: int, output_threshold: int
) -> Next:
    """Lines 5 to 12: the next task stays when I_n is empty or O_n > T_O, else it may leave.

    The published workers hold every part of the network; where this one does not hold the next
    stage, the task must leave.
    """
    if leaves_here:
        return Next.EXIT
    if holds_next and (input_length == 0 or output_length > output_threshold):
        return Next.INPUT
    return Next.OUTPUT
