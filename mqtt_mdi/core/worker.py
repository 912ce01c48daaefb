"""The worker: runs stages, lets frames leave at sure exits, hands tasks on as its strategy says."""

from collections import Counter, deque
from dataclasses import replace
from itertools import islice
from random import Random
from typing import Any

from mqtt_mdi.core import events, exits
from mqtt_mdi.core.effects import DropInput, PublishState, ReportOutcome, RunStage, SendTask, SetTimer
from mqtt_mdi.core.fit import misfit
from mqtt_mdi.core.offload import Neighbour, smooth
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.queues import OutputQueue, RecentSet
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.system import ENVELOPE_BYTES
from mqtt_mdi.core.types import MOST_LINKS, DeviceState, Echo, Task

Event = (
    events.Started
    | events.TimerFired
    | events.PolicyChanged
    | events.NeighbourReported
    | events.NeighbourLost
    | events.TaskArrived
    | events.StagesReady
    | events.StageCompleted
    | events.StageFailed
)
Effect = SetTimer | RunStage | SendTask | ReportOutcome | DropInput | PublishState

REPORT = "report"
DUPLICATES_REMEMBERED = 8192
LONGEST_ROUND_TRIP_S = 60.0
"""On a full link an echo takes seconds; what seems to take longer was stamped by another start."""
ROUTED_REMEMBERED = 256
"""Tasks of a stage after whose routing the counts are halved, so that shares hold for the recent past."""


class Worker:
    """The machine on a device. It holds stages, an input queue I_n and an output queue O_n."""

    def __init__(self, identity: DeviceState, policy: Policy, stage_count: int, rng: Random) -> None:
        self.identity = identity
        self.policy = policy
        self.strategy = STRATEGIES[policy.strategy]
        self.stage_count = stage_count
        self.rng = rng
        self.stages: frozenset[int] = frozenset()
        self.input: deque[Task] = deque()
        self.output = OutputQueue()
        self.running: Task | None = None
        self.neighbours: dict[str, Neighbour] = {}
        self.service_s: float | None = None
        self.service_by_stage: dict[int, float] = {}
        self.counters: Counter[str] = Counter()
        self.routed: Counter[tuple[int, str]] = Counter()
        self.received: Counter[str] = Counter()
        self._seen = RecentSet(DUPLICATES_REMEMBERED)
        self._queued: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._serial = 0
        self._capacity = 2 * policy.queue_limit
        self._moved = 0
        self._told: dict[str, Any] = {}
        self._told_at = 0.0

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one fact; return orders."""
        effects: list[Effect] = []
        match event:  # the most frequent first
            case events.TaskArrived(task, sender):
                effects += self._take(task, sender)
            case events.StageCompleted():
                effects += self._completed(event)
            case events.NeighbourReported(state):
                self._hear(state, now)
            case events.TimerFired(key) if key == REPORT:
                self._forget_silent(now)
                effects += self._shed()
                effects += self._report(now)
            case events.NeighbourLost(device):
                self.neighbours.pop(device, None)
            case events.StageFailed(task, reason, retry):
                self.running = None
                self.counters["stage_failures"] += 1
                effects.append(self._failure(task, reason, retry=retry))
            case events.PolicyChanged(policy):
                effects += self._obey(policy, now)
            case events.StagesReady(stages):
                self._hold(stages)
            case events.Started():
                self._told = {}
                effects += self._report(now)
        effects += self._offload()
        effects += self._work()
        return effects

    @property
    def name(self) -> str:
        """The device."""
        return self.identity.device

    @property
    def wait(self) -> float:
        """I_n Γ_n with the task in the engine: seconds until a task queued now would begin."""
        return (len(self.input) + (self.running is not None)) * (self.service_s or 0.0)

    def holders(self, stage: int) -> list[Neighbour]:
        """The neighbours that hold a stage, may be sent to and have room."""
        limit = self.policy.queue_limit
        allowed = self.policy.neighbours.get(self.identity.device)
        return [
            neighbour
            for name, neighbour in self.neighbours.items()
            if stage in neighbour.state.stages
            and neighbour.backlog < limit
            and (allowed is None or name in allowed)
        ]

    def check(self) -> None:
        """The invariants of this machine."""
        done = ("exits", "sent", "failures", "duplicates")
        assert self._held() <= self._capacity
        assert len(self._queued) == len(self.input) + len(self.output)
        assert self.counters["arrived"] == self._held() + sum(self.counters[name] for name in done)

    def state(self, now: float) -> DeviceState:
        """What this worker tells the others."""
        told = dict(islice(self.neighbours.items(), MOST_LINKS))
        return replace(
            self.identity,
            **self._news(),
            stamp=now,
            delays={name: n.delay for name, n in told.items() if n.delay is not None},
            echoes={
                name: Echo(n.state.stamp, max(0.0, now - n.seen_at), self.received[name])
                for name, n in told.items()
            },
        )

    def _news(self) -> dict[str, Any]:
        """What of the state is worth a report when it changes."""
        return {
            "stages": tuple(sorted(self.stages)),
            "input_queue": len(self.input),
            "output_queue": len(self.output),
            "running": int(self.running is not None),
            "service_s": self.service_s or 0.0,
            "service_by_stage": dict(self.service_by_stage),
            "counters": dict(self.counters),
            "policy_version": self.policy.version,
        }

    def _report(self, now: float) -> list[Effect]:
        effects: list[Effect] = [SetTimer(REPORT, now + report_period(self.policy))]
        news = self._news()
        if news != self._told or now - self._told_at >= silence_broken_s(self.policy):
            self._told, self._told_at = news, now
            effects.append(PublishState(self.state(now)))
        return effects

    def _obey(self, policy: Policy, now: float) -> list[Effect]:
        if misfit(policy, self.stage_count) is not None:
            self.counters["policies_refused"] += 1
            return []
        if policy.version <= self.policy.version:
            return []
        if policy.shares != self.policy.shares:
            self.routed.clear()
        before, self.policy = report_period(self.policy), policy
        self.strategy = STRATEGIES[policy.strategy]
        # What came before a lower limit stays until it is done.
        self._capacity = max(2 * policy.queue_limit, self._held())
        period = report_period(policy)
        return [SetTimer(REPORT, now + period)] if period != before else []

    def _held(self) -> int:
        return len(self.input) + len(self.output) + (self.running is not None)

    def _forget_silent(self, now: float) -> None:
        for name, neighbour in list(self.neighbours.items()):
            if now - neighbour.seen_at > self.policy.silence_s:
                del self.neighbours[name]

    def _shed(self) -> list[Effect]:
        """Give one task back to its source when a full O_n has stood still since the last report.

        Two workers that each wait for room at the other would otherwise wait for ever.
        """
        before, self._moved = self._moved, self.counters["completed"] + self.counters["sent"]
        stands = self.running is None and self._moved == before
        if not stands or len(self.output) < self.policy.queue_limit:
            return []
        oldest = min(self.output.stages(), key=lambda stage: self._queued[self.output.head(stage).work])
        task = self.output.pop(oldest)
        del self._queued[task.work]
        return [DropInput(task), self._failure(task, f"nobody took stage {task.stage}", retry=True)]

    def _hear(self, state: DeviceState, now: float) -> None:
        if state.device == self.identity.device:
            return
        if not state.online:
            self.neighbours.pop(state.device, None)
            return
        known = self.neighbours.get(state.device)
        delay = known.delay if known else None
        if echo := state.echoes.get(self.identity.device):
            round_trip = now - echo.stamp - echo.held_s
            if 0 <= round_trip <= LONGEST_ROUND_TRIP_S:
                delay = smooth(delay, round_trip / 2)
        self.neighbours[state.device] = Neighbour(state, now, delay)

    def _hold(self, stages: frozenset[int]) -> None:
        """Tasks of a stage given up must leave; those of a stage gained may stay."""
        self.stages = stages
        waiting, self.input = self.input, deque()
        for task in waiting:
            (self.input if task.stage in stages else self.output).append(task)

    def _take(self, task: Task, sender: str | None) -> list[Effect]:
        self.counters["arrived"] += 1
        if sender in self.neighbours:
            self.received[sender] += task.size + ENVELOPE_BYTES
        if not self._seen.add(task.key) or self._is_ahead(task):
            return self._ignore(task)
        if task.stage > self.stage_count:
            reason = f"stage {task.stage} of {self.stage_count} does not exist"
            return [DropInput(task), self._failure(task, reason)]
        queue = self._queue_for(task, came_up=task.hops == 0 and task.source == self.identity.device)
        limit = self.policy.queue_limit
        # Both: a task that changes queues here always has a place.
        if len(queue) >= limit or self._held() >= 2 * limit:
            reason = f"queue of {self.identity.device} is full"
            return [DropInput(task), self._failure(task, reason, retry=True)]
        self._enqueue(queue, task)
        return []

    def _queue_for(self, task: Task, *, came_up: bool) -> deque[Task] | OutputQueue:
        """I_n or O_n: the strategy decides about what came up here, what was sent here stays if it can."""
        if task.stage not in self.stages or (came_up and not self.strategy.keeps(self, task)):
            return self.output
        if came_up:
            self._count_route(task.stage, self.identity.device)
        return self.input

    def _count_route(self, stage: int, device: str) -> None:
        routed = self.routed
        routed[stage, device] += 1
        if routed[stage, device] >= ROUTED_REMEMBERED:
            for route in routed:
                routed[route] //= 2

    def _is_ahead(self, task: Task) -> bool:
        """Whether the same frame waits or runs here at this stage or a later one, in any attempt.

        When frames are slow to answer their sources try again; running both attempts would make
        everything slower still.
        """
        sensor, frame_id, first = task.work
        running = self.running
        if running and running.frame_id == frame_id and running.sensor == sensor and running.stage >= first:
            return True
        for stage in range(first, self.stage_count + 1):  # noqa: SIM110 -- a generator takes twice the time
            if (sensor, frame_id, stage) in self._queued:
                return True
        return False

    def _ignore(self, duplicate: Task) -> list[Effect]:
        """A second delivery, or another attempt at what waits here and will be done anyway."""
        self.counters["duplicates"] += 1
        return self._drop(duplicate)

    def _drop(self, task: Task) -> list[Effect]:
        """An input is needed no more, unless the very same task waits here."""
        _, attempt = self._queued.get(task.work, (0, 0))
        return [] if attempt == task.attempt else [DropInput(task)]

    def _enqueue(self, queue: deque[Task] | OutputQueue, task: Task) -> None:
        self._serial += 1
        self._queued[task.work] = (self._serial, task.attempt)
        queue.append(task)

    def _completed(self, event: events.StageCompleted) -> list[Effect]:
        task = event.task
        self.running = None
        self.service_s = smooth(self.service_s, event.seconds)
        self.service_by_stage[task.stage] = smooth(self.service_by_stage.get(task.stage), event.seconds)
        self.counters["completed"] += 1
        following = moved(task, stage=task.stage + 1, hops=task.hops, size=event.size)
        sure = self.strategy.early_exits and exits.leaves(event.score, task.stage, self.policy.thresholds)
        if sure or task.stage == self.stage_count:
            self.counters["exits"] += 1
            outcome = task.outcome(self.name, label=event.label, score=event.score)
            return [*self._drop(following), ReportOutcome(task.source, outcome)]
        if not self._seen.add(following.key) or self._is_ahead(following):
            return self._ignore(following)
        self._enqueue(self._queue_for(following, came_up=True), following)
        return []

    def _work(self) -> list[Effect]:
        """Run the head of I_n, or the head of O_n when it has waited longer and may run here.

        By the published rules a task in O_n waits until a neighbour compares well: for ever if none
        does, or if I_n empties and with it the wait to compare with. Here O_n never costs a task more
        time than I_n would have. With a full O_n the worker takes back or pauses: its input queue
        fills, and its neighbours stop sending.
        """
        if self.running is not None or not self._queued:
            return []
        full = len(self.output) >= self.policy.queue_limit
        waiting = [self.output.head(stage) for stage in self.output.stages() if stage in self.stages]
        if self.input and not full:
            waiting.append(self.input[0])
        if not waiting:
            return []
        task = min(waiting, key=lambda task: self._queued[task.work])
        if self.input and task is self.input[0]:
            self.input.popleft()
        else:
            self.output.pop(task.stage)
        del self._queued[task.work]
        self.running = task
        return [RunStage(task)]

    def _offload(self) -> list[Effect]:
        effects: list[Effect] = []
        for stage in self.output.stages():
            while self.output.holds(stage) and (target := self.strategy.target(self, stage)) is not None:
                task = self.output.pop(stage)
                del self._queued[task.work]
                self._seen.discard(task.key)  # it may be handed back when the other gives the stage up
                if target in self.neighbours:
                    self.neighbours[target].unreported += 1
                self._count_route(stage, target)
                self.counters["sent"] += 1
                effects.append(SendTask(target, moved(task, stage=stage, hops=task.hops + 1, size=task.size)))
        return effects

    def _failure(self, task: Task, reason: str, *, retry: bool = False) -> ReportOutcome:
        self.counters["failures"] += 1
        return ReportOutcome(task.source, task.outcome(self.name, reason=reason[:500], retry=retry))


def silence_broken_s(policy: Policy) -> float:
    """Seconds after which a device speaks though nothing is new, long before the others take it for dead."""
    return policy.silence_s / 3


def report_period(policy: Policy) -> float:
    """Seconds between a device's looks at whether there is something to report."""
    return min(policy.report_interval_s, silence_broken_s(policy))


def moved(task: Task, *, stage: int, hops: int, size: int) -> Task:
    """The same frame's task elsewhere or of another stage: each frame has several, `replace` is slow."""
    return Task(task.sensor, task.frame_id, task.source, stage, task.attempt, hops, task.admitted_at, size)
