"""MDI-Exit, Algorithm 1: leave here, go on here, or go on elsewhere (arXiv 2408.05247)."""

from collections.abc import Sequence


def leaves(score: float, stage: int, thresholds: Sequence[float]) -> bool:
    """Whether a frame leaves after `stage`: C_k(d) >= T_k, or k is the last stage."""
    return stage > len(thresholds) or score >= thresholds[stage - 1]


def stays(*, input_length: int, output_length: int, output_threshold: int) -> bool:
    """Lines 5 to 12: the next task goes into I_n when I_n is empty or O_n > T_O, else into O_n."""
    return input_length == 0 or output_length > output_threshold
