"""The source: admits frames, owns each under a lease until it is answered, answers once."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush

from mqtt_mdi.core import events
from mqtt_mdi.core.admission import ResponseTime, next_interval
from mqtt_mdi.core.effects import (
    ObserveBacklog,
    PublishResult,
    RefuseFrame,
    ReleaseFrame,
    SetTimer,
    SubmitTask,
)
from mqtt_mdi.core.fit import misfit
from mqtt_mdi.core.ledger import Ledger
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.queues import RecentFrames
from mqtt_mdi.core.types import FrameKey, Outcome, Result, Task

Event = (
    events.Started
    | events.TimerFired
    | events.PolicyChanged
    | events.FrameArrived
    | events.OutcomeReported
    | events.BacklogObserved
    | events.Stopping
    | events.Stopped
)
Effect = SetTimer | ObserveBacklog | SubmitTask | PublishResult | RefuseFrame | ReleaseFrame

LEASE = "lease"
ADMIT = "admit"
ADAPT = "adapt"
TIMERS = frozenset((LEASE, ADMIT, ADAPT))
RETRY_DELAY_S = 0.05
ANSWERED_REMEMBERED = 65_536
EXPIRIES_SPARED = 64
"""Expiries of frames answered meanwhile that may stay in the heap until it is built anew."""


@dataclass(frozen=True, slots=True)
class Owed:
    """A frame of `size` bytes that earlier starts of this source took in; they may have used `attempts`."""

    frame: FrameKey
    size: int
    attempts: int


@dataclass(slots=True)
class Lease:
    """A frame owed an answer: when it was admitted and when each attempt of this start began.

    `earlier` are the numbers that earlier starts may have used: workers ignore an attempt they have seen.
    One that was `handed_back` waits for its next attempt, not for an answer.
    """

    size: int
    admitted_at: float
    began: list[float]
    earlier: int = 0
    expires_at: float = 0.0
    handed_back: bool = False

    @property
    def attempt(self) -> int:
        """The number of the latest attempt, from 1."""
        return self.earlier + len(self.began)


class Source:
    """The machine that admits frames. `name` is where devices report outcomes.

    What earlier starts left is `owed`, oldest first, and never refused; what they `answered` is known.
    """

    def __init__(  # noqa: PLR0913 -- the last two are what a spool gives back
        self,
        name: str,
        policy: Policy,
        stage_count: int,
        class_names: tuple[str, ...] = (),
        *,
        owed: Iterable[Owed] = (),
        answered: Iterable[FrameKey] = (),
    ) -> None:
        self.name = name
        self.policy = policy
        self.stage_count = stage_count
        self.class_names = class_names
        self.ledger = Ledger()
        self.leases: dict[FrameKey, Lease] = {}
        self.pending: deque[tuple[FrameKey, int]] = deque()
        self._known: set[FrameKey] = set()
        self._expiries: list[tuple[float, FrameKey]] = []
        self._answered = RecentFrames(ANSWERED_REMEMBERED)
        for frame in answered:
            self._answered.add(frame)
        self._earlier: dict[FrameKey, int] = {}
        for left in owed:
            self._earlier[left.frame] = left.attempts
            self._known.add(left.frame)
            self.pending.append((left.frame, left.size))
        self._response = ResponseTime()
        self._timer_at: float | None = None
        self._interval = policy.admission.first_interval_s
        self._admits_at = 0.0
        self._paced = False
        self._stopping = False

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one fact; return orders."""
        effects: list[Effect] = []
        match event:  # the most frequent first
            case events.FrameArrived(frame, size):
                effects += self._arrive(frame, size)
            case events.OutcomeReported(outcome):
                effects += self._hear(outcome, now)
            case events.TimerFired(key) if key == LEASE:
                self._timer_at = None
                effects += self._expire(now)
            case events.TimerFired(key) if key == ADAPT:
                effects.append(ObserveBacklog())
            case events.BacklogObserved(tasks):
                effects += self._adapt(tasks, now)
            case events.PolicyChanged(policy):
                effects += self._obey(policy, now)
            case events.Stopping():
                self._stopping = True
            case events.Stopped():
                effects += self._give_up(now)
            case _:
                pass
        effects += self._pace(now)
        effects += self._admit(now)
        effects += self._refuse_excess()
        effects += self._set_timer()
        return effects

    def check(self) -> None:
        """The invariants of this machine."""
        self.ledger.check(len(self.leases))
        assert len(self.pending) <= max(self.policy.pending_limit, len(self._earlier))
        assert self._known == set(self.leases) | {frame for frame, _ in self.pending}

    def _arrive(self, frame: FrameKey, size: int) -> list[Effect]:
        if frame in self._known or frame in self._answered:
            self.ledger.duplicates += 1
            return [] if frame in self._known else [ReleaseFrame(frame)]
        self._known.add(frame)
        self.pending.append((frame, size))
        return []

    def _obey(self, policy: Policy, now: float) -> list[Effect]:
        if policy.version <= self.policy.version or misfit(policy, self.stage_count) is not None:
            return []
        before, self.policy = self.policy.admission.period_s, policy
        period = policy.admission.period_s
        return [SetTimer(ADAPT, now + period)] if self._paced and period != before else []

    def _pace(self, now: float) -> list[Effect]:
        """Begin with Algorithm 3 when the policy asks for it, end when it no longer does."""
        before, self._paced = self._paced, self.policy.admission.rule == "paced"
        if before or not self._paced:
            return []
        self._interval, self._admits_at = self.policy.admission.first_interval_s, now
        return [SetTimer(ADAPT, now + self.policy.admission.period_s)]

    def _adapt(self, backlog: int, now: float) -> list[Effect]:
        rule = self.policy.admission
        if not self._paced:
            return []
        # With nothing to admit the queues are short whatever the interval is: that teaches nothing.
        if self.pending or backlog >= rule.high:
            self._interval = next_interval(self._interval, backlog, rule)
        return [SetTimer(ADAPT, now + rule.period_s)]

    def _admit(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self.pending and len(self.leases) < self.policy.window and not self._stopping:
            if self._paced:
                if now < self._admits_at:
                    return [*effects, SetTimer(ADMIT, self._admits_at)]
                # An idle source earns no more than one frame ahead of its pace.
                self._admits_at = max(self._admits_at, now - self._interval) + self._interval
            frame, size = self.pending.popleft()
            self.ledger.admitted += 1
            self.leases[frame] = Lease(size, now, [], self._earlier.pop(frame, 0))
            effects.append(self._begin(frame, now))
        return effects

    def _refuse_excess(self) -> list[Effect]:
        """More frames wait than may: one came too many, a policy lowered the limit, or the end is near."""
        effects: list[Effect] = []
        limit = 0 if self._stopping else self.policy.pending_limit
        while len(self.pending) > max(limit, len(self._earlier)):
            frame, _ = self.pending.pop()
            self._known.discard(frame)
            self.ledger.refused += 1
            reason = f"{self.name} is full: {len(self.leases)} frames admitted, {len(self.pending)} waiting"
            if self._stopping:
                reason = f"{self.name} is stopping"
            effects.extend((RefuseFrame(frame, reason), ReleaseFrame(frame)))
        return effects

    def _give_up(self, now: float) -> list[Effect]:
        """Answer what is still owed, since nobody will afterwards."""
        reason = f"source {self.name} was stopped before an answer came"
        return [effect for frame in list(self.leases) for effect in self._answer(frame, None, now, reason)]

    def _begin(self, frame: FrameKey, now: float) -> Effect:
        """Begin a frame's next attempt."""
        lease = self.leases[frame]
        lease.began.append(now)
        lease.handed_back = False
        self._schedule(frame, self._due(lease))
        return SubmitTask(
            Task(
                frame.sensor,
                frame.frame_id,
                self.name,
                stage=1,
                attempt=lease.attempt,
                admitted_at=lease.admitted_at,
                size=lease.size,
            )
        )

    def _due(self, lease: Lease) -> float:
        """When an answer to the latest attempt is overdue, by the answers so far."""
        return lease.began[-1] + self._response.lease(self.policy.lease_s, len(lease.began))

    def _schedule(self, frame: FrameKey, at: float) -> None:
        self.leases[frame].expires_at = at
        heappush(self._expiries, (at, frame))
        if len(self._expiries) > 2 * len(self.leases) + EXPIRIES_SPARED:
            self._expiries = [(lease.expires_at, frame) for frame, lease in self.leases.items()]
            heapify(self._expiries)

    def _hear(self, outcome: Outcome, now: float) -> list[Effect]:
        frame = outcome.frame
        lease = self.leases.get(frame)
        if lease is None or outcome.attempt > lease.attempt:
            self.ledger.duplicates += 1
            return []
        if outcome.reason is None and not self._is_answer(outcome):
            outcome = replace(
                outcome, reason=f"{outcome.device} sent no label and score of this network", retry=True
            )
        if outcome.reason is None:
            if outcome.attempt > lease.earlier:
                self._response.observe(now - lease.began[outcome.attempt - lease.earlier - 1])
            return self._answer(frame, outcome, now)
        if outcome.attempt < lease.attempt:
            return []
        if outcome.retry and len(lease.began) < self.policy.max_attempts:
            lease.handed_back = True
            self._schedule(frame, now + RETRY_DELAY_S * 2 ** min(len(lease.began), 6))
            return []
        return self._answer(frame, outcome, now)

    def _is_answer(self, outcome: Outcome) -> bool:
        given = outcome.label is not None and outcome.score is not None
        return given and outcome.stage <= self.stage_count

    def _expire(self, now: float) -> list[Effect]:
        effects: list[Effect] = []
        while self._expiries and self._expiries[0][0] <= now:
            at, frame = heappop(self._expiries)
            if self._is_stale(at, frame):
                continue
            lease = self.leases[frame]
            if not lease.handed_back and (due := self._due(lease)) > now:
                self._schedule(frame, due)  # answers have become slower since it began
                continue
            if len(lease.began) < self.policy.max_attempts:
                self.ledger.retried += 1
                effects.append(self._begin(frame, now))
                continue
            reason = f"no answer in {len(lease.began)} attempts, {now - lease.admitted_at:.1f} s"
            effects.extend(self._answer(frame, None, now, reason))
        return effects

    def _is_stale(self, at: float, frame: FrameKey) -> bool:
        lease = self.leases.get(frame)
        return lease is None or lease.expires_at != at

    def _answer(
        self, frame: FrameKey, outcome: Outcome | None, now: float, reason: str | None = None
    ) -> list[Effect]:
        lease = self.leases.pop(frame)
        self._known.discard(frame)
        self._answered.add(frame)
        reason = outcome.reason if outcome else reason
        label = outcome.label if outcome else None
        named = label is not None and label < len(self.class_names)
        if reason is None:
            self.ledger.answered += 1
        else:
            self.ledger.failed += 1
        result = Result(
            frame.sensor,
            frame.frame_id,
            "ok" if reason is None else "failed",
            label=label,
            class_name=self.class_names[label] if named and label is not None else None,
            score=outcome.score if outcome else None,
            exit_stage=outcome.stage if outcome and reason is None else None,
            device=outcome.device if outcome else None,
            latency_ms=1000 * (now - lease.admitted_at),
            hops=outcome.hops if outcome else 0,
            attempts=len(lease.began),
            policy_version=self.policy.version,
            reason=reason,
        )
        return [PublishResult(result), ReleaseFrame(frame)]

    def _set_timer(self) -> list[Effect]:
        while self._expiries and self._is_stale(*self._expiries[0]):
            heappop(self._expiries)
        if not self._expiries:
            return []
        at = self._expiries[0][0]
        if self._timer_at is not None and self._timer_at <= at:
            return []
        self._timer_at = at
        return [SetTimer(LEASE, at)]
