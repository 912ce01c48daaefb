"""What flows between devices, from what receivers say they have received."""

from collections import deque
from dataclasses import dataclass, field

from mqtt_mdi.core.types import DeviceState

FEW = 16
"""Up to so many devices each is shown in full, with its links."""

ALL = ""
"""Stands for all senders where there are more devices than FEW."""

FLOW_S = 3.0
"""Over how many seconds of the receiver's clock a flow is measured."""

Pair = tuple[str, str]
Points = deque[tuple[float, int]]
"""What was received, and when by the receiver's clock."""


@dataclass
class Flows:
    """Bytes a second of tasks on each link.

    Links grow with the square of the devices. Of more than FEW devices it is what each receives of ALL.
    """

    _seen: dict[Pair, Points] = field(default_factory=dict)

    def take(self, devices: tuple[DeviceState, ...]) -> dict[Pair, float]:
        """The flows by (sender, receiver) after these states; of a link seen once there is none."""
        online = [state for state in devices if state.online]
        if len(devices) > FEW:
            seen = {(ALL, state.device): self._total(state) for state in online}
        else:
            names = {state.device for state in online}
            seen = {
                (sender, state.device): self._add((sender, state.device), state.stamp, echo.received)
                for state in online
                for sender, echo in state.echoes.items()
                if sender in names
            }
        self._seen = seen
        return {
            pair: (points[-1][1] - points[0][1]) / (points[-1][0] - points[0][0])
            for pair, points in seen.items()
            if len(points) > 1
        }

    def _total(self, state: DeviceState) -> Points:
        known = self._seen.get((ALL, state.device))
        if known and known[-1][0] == state.stamp:
            return known  # nothing new, and there may be a thousand echoes to add up
        received = sum(echo.received for echo in state.echoes.values())
        return self._add((ALL, state.device), state.stamp, received)

    def _add(self, pair: Pair, stamp: float, received: int) -> Points:
        seen = self._seen.get(pair) or deque()
        if seen and (stamp < seen[-1][0] or received < seen[-1][1]):
            seen.clear()  # the receiver was started anew
        if not seen or stamp > seen[-1][0]:
            seen.append((stamp, received))
        while len(seen) > 2 and seen[1][0] < stamp - FLOW_S:  # noqa: PLR2004 -- two make a rate
            seen.popleft()
        return seen
