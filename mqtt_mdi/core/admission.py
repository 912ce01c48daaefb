"""When a source admits the next frame, and how long it waits for an answer.

Two rules of admission: a window of frames without an answer, which always holds, and beneath it
MDI-Exit's Algorithm 3 (arXiv 2408.05247), which paces admission by the source's own queues.
"""

from mqtt_mdi.core.policy import Admission

LONGEST_INTERVAL_S = 60.0


def next_interval(interval: float, backlog: int, rule: Admission) -> float:
    """Algorithm 3: the seconds between two admissions, from q = I_s + O_s in tasks.

    Below T_Q1 much shorter, below T_Q2 a little shorter, else longer.
    """
    if backlog < rule.low:
        factor = rule.much_shorter
    elif backlog < rule.high:
        factor = rule.little_shorter
    else:
        factor = rule.longer
    return min(max(interval * factor, rule.least_interval_s), LONGEST_INTERVAL_S)


class ResponseTime:
    """Lease length from measured answers, as TCP sets its retransmission timer (RFC 6298).

    A lease that is shorter than the system is slow would try every frame twice and make it slower.
    """

    def __init__(self) -> None:
        self._mean: float | None = None
        self._deviation = 0.0

    def observe(self, seconds: float) -> None:
        """Take in the time one attempt took (RFC 6298, section 2.3)."""
        if self._mean is None:
            self._mean, self._deviation = seconds, seconds / 2
            return
        self._deviation += (abs(self._mean - seconds) - self._deviation) / 4
        self._mean += (seconds - self._mean) / 8

    def lease(self, least: float, attempt: int) -> float:
        """Seconds to wait for an answer to `attempt`: doubled with each attempt (section 5.5)."""
        expected = 0.0 if self._mean is None else self._mean + 4 * self._deviation
        return float(max(least, expected) * 2 ** min(attempt - 1, 6))
