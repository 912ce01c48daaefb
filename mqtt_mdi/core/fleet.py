"""What the coordinator has measured of devices and links, for the planner."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from mqtt_mdi.core.offload import smooth
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Member, Pair, StageProfile, System
from mqtt_mdi.core.types import DeviceState

UNLIMITED = float("inf")
USUAL_PACE_S = 1e-9
"""Seconds for a multiply-add, as long as no device has run anything."""

CONGESTED_S = 0.05
"""A link is full when its delay is three times the least seen and more than this above it."""

FORGET_S = 60.0
"""A limit of a link that was not felt for so long is tried again, and a least delay so old is none."""


@dataclass(slots=True)
class Link:
    """One direction between two devices: what arrived by the receiver's clock, and what it can carry."""

    received: int
    stamp: float
    least_delay: float = UNLIMITED
    least_at: float = 0.0
    capacity: float = UNLIMITED
    felt_at: float = 0.0


class Fleet:
    """The devices that are online, as their states tell."""

    def __init__(self, profiles: tuple[StageProfile, ...]) -> None:
        self.profiles = profiles
        self.states: dict[str, DeviceState] = {}
        self._paces: dict[str, float] = {}
        self._links: dict[Pair, Link] = {}

    def hear(self, state: DeviceState, now: float) -> None:
        """A device's state; one that is offline is forgotten with its links."""
        known = self.states.get(state.device)
        if not state.online or (known and known.boot != state.boot):
            self.states.pop(state.device, None)
            self._links = {pair: link for pair, link in self._links.items() if state.device not in pair}
        if state.online:
            self.states[state.device] = state
            self._learn_pace(state)
            for sender, echo in state.echoes.items():
                if sender in self.states:
                    self._measure((sender, state.device), echo.received, state.stamp, now)

    def system(self, policy: Policy) -> System:
        """What a planner is to plan for.

        A stage that a device has not run yet is expected to take as long as its pace elsewhere or before
        says, and what has never run anything to be of the usual pace.
        """
        usual = median([self._paces[name] for name in self.states if name in self._paces] or [USUAL_PACE_S])
        members = tuple(
            self._member(state, self._paces.get(name, usual)) for name, state in sorted(self.states.items())
        )
        pairs = ((a, b) for a in self.states for b in policy.neighbours.get(a, self.states) if b != a)
        return System(
            members,
            {
                pair: self._links[pair].capacity if pair in self._links else UNLIMITED
                for pair in pairs
                if pair[1] in self.states
            },
            self.profiles,
        )

    def _learn_pace(self, state: DeviceState) -> None:
        """Seconds for a multiply-add, over all stages measured."""
        known = {k: s for k, s in state.service_by_stage.items() if s > 0 and k <= len(self.profiles)}
        if known:
            self._paces[state.device] = sum(known.values()) / sum(self.profiles[k - 1].macs for k in known)

    def _member(self, state: DeviceState, pace: float) -> Member:
        measured = state.service_by_stage
        return Member(
            state.device,
            tuple(measured.get(k) or pace * profile.macs for k, profile in enumerate(self.profiles, 1)),
            state.memory,
            source=state.role == "source",
            stages=frozenset(k for k in state.stages if k <= len(self.profiles)),
        )

    def _measure(self, pair: Pair, received: int, stamp: float, now: float) -> None:
        """A full link's capacity is what arrives over it (BBR's rule, Cardwell et al., ACM Queue 2016)."""
        link = self._links.get(pair)
        if link is None:
            self._links[pair] = Link(received, stamp)
            return
        seconds, arrived = stamp - link.stamp, received - link.received
        link.stamp, link.received = stamp, received
        delay = self.states[pair[0]].delays.get(pair[1])
        if delay is None or seconds <= 0:
            return
        if delay <= link.least_delay or now - link.least_at > FORGET_S:
            link.least_delay, link.least_at = delay, now
        full = delay > max(3 * link.least_delay, link.least_delay + CONGESTED_S)
        if full and arrived > 0:
            known = None if link.capacity == UNLIMITED else link.capacity
            link.capacity, link.felt_at = smooth(known, arrived / seconds), now
        elif arrived / seconds > link.capacity:
            link.capacity = arrived / seconds
        elif now - link.felt_at > FORGET_S:
            link.capacity = UNLIMITED


NOISE_S = 0.0005
"""Stage times that differ by less say more of a busy machine than of its speed."""


def drift(before: System, now: System, placement: Mapping[str, tuple[int, ...]], share: float) -> str | None:
    """What changed by more than `share` since a plan was made, of devices and stages that it uses."""
    planned = {member.device: member for member in before.members}
    for member in now.members:
        for stage in placement.get(member.device, ()):
            then, today = planned[member.device].seconds[stage - 1], member.seconds[stage - 1]
            if _differ(then, today, share) and abs(then - today) > NOISE_S:
                return f"{member.device} takes {_ms(today)} for stage {stage}, {_ms(then)} were planned"
    for (a, b), rate in now.links.items():
        then = before.links.get((a, b), UNLIMITED)
        if _differ(then, rate, share):
            return f"{a} to {b} carries {_rate(rate)}, {_rate(then)} were planned"
    return None


def _differ(a: float, b: float, share: float) -> bool:
    return max(a, b) > min(a, b) * (1 + share)


def _ms(seconds: float) -> str:
    return f"{_three_digits(1000 * seconds)} ms"


def _rate(rate: float) -> str:
    return "any amount" if rate == UNLIMITED else f"{_three_digits(rate / 1000)} kB/s"


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004 -- no 1e+03
