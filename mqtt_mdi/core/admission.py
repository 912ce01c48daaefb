"""How many frames a source keeps in the system at once, and how long it waits for an answer."""


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
