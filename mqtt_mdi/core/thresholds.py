"""MDI-Exit's Algorithm 4: exit thresholds that follow the source's queues (arXiv 2408.05247)."""

from mqtt_mdi.core.policy import Adaptation

HIGHEST = 1.0
_DIGITS = 4


def next_threshold(threshold: float, backlog: int, rule: Adaptation) -> float:
    """One step for one threshold, from q = I_s + O_s in tasks; arrivals are not ours to slow down.

    Below T_Q1 much surer, below T_Q2 a little surer, else less sure, between T_min and 1.
    """
    if backlog < rule.low:
        factor = rule.much_higher
    elif backlog < rule.high:
        factor = rule.little_higher
    else:
        factor = rule.lower
    return round(min(max(threshold * factor, rule.least), HIGHEST), _DIGITS)
