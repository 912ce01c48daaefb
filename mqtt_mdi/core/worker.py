"""The worker: runs stages, lets frames leave at sure exits, hands tasks on. MDI-Exit, rules 1 and 2."""

from collections import Counter, deque
from dataclasses import replace
from random import Random

from mqtt_mdi.core import events, exits, offload
from mqtt_mdi.core.effects import DropInput, PublishState, ReportOutcome, RunStage, SendTask, SetTimer
from mqtt_mdi.core.offload import Neighbour, smooth
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.queues import OutputQueue, RecentSet
from mqtt_mdi.core.types import DeviceState, Echo, Outcome, Task

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


class Worker:
    """The machine on a device. It holds stages, an input queue I_n and an output queue O_n."""

    def __init__(self, identity: DeviceState, policy: Policy, stage_count: int, rng: Random) -> None:
        self.identity = identity
        self.policy = policy
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
        self.reported: DeviceState | None = None
        self._seen = RecentSet(DUPLICATES_REMEMBERED)
        self._queued: dict[tuple[str, str, int], tuple[int, int]] = {}
        self._serial = 0
        self._capacity = 2 * policy.queue_limit
        self._moved = 0

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one fact; return orders."""
        effects: list[Effect] = []
        match event:
            case events.Started():
                self.reported = None
                effects.extend(self._report(now))
            case events.TimerFired(key) if key == REPORT:
                self._forget_silent(now)
                effects.extend(self._shed())
                effects.extend(self._report(now))
            case events.PolicyChanged(policy):
                self._obey(policy)
            case events.StagesReady(stages):
                self._hold(stages)
            case events.NeighbourReported(state) if state.device != self.identity.device:
                self._hear(state, now)
            case events.NeighbourLost(device):
                self.neighbours.pop(device, None)
            case events.TaskArrived(task):
                effects.extend(self._take(task))
            case events.StageCompleted():
                effects.extend(self._completed(event))
            case events.StageFailed(task, reason, retry):
                self.running = None
                self.counters["stage_failures"] += 1
                effects.append(self._failure(task, reason, retry=retry))
        effects.extend(self._work())
        effects.extend(self._offload())
        effects.extend(self._work())  # what left may have ended a pause
        return effects

    def check(self) -> None:
        """The invariants of this machine."""
        done = ("exits", "sent", "failures", "duplicates")
        assert self._held() <= self._capacity
        assert len(self._queued) == len(self.input) + len(self.output)
        assert self.counters["arrived"] == self._held() + sum(self.counters[name] for name in done)

    def state(self, now: float) -> DeviceState:
        """What this worker tells the others."""
        return replace(
            self.identity,
            stages=tuple(sorted(self.stages)),
            input_queue=len(self.input),
            output_queue=len(self.output),
            running=int(self.running is not None),
            service_s=self.service_s or 0.0,
            service_by_stage=dict(self.service_by_stage),
            counters=dict(self.counters),
            policy_version=self.policy.version,
            stamp=now,
            echoes={
                name: Echo(neighbour.state.stamp, max(0.0, now - neighbour.seen_at))
                for name, neighbour in self.neighbours.items()
            },
        )

    def _report(self, now: float) -> list[Effect]:
        state = self.state(now)
        last = self.reported
        effects: list[Effect] = [SetTimer(REPORT, now + self.policy.report_interval_s)]
        changed = last is None or replace(state, stamp=last.stamp, echoes=last.echoes) != last
        if changed or (last is not None and now - last.stamp >= self.policy.silence_s / 3):
            self.reported = state
            effects.append(PublishState(state))
        return effects

    def _obey(self, policy: Policy) -> None:
        if len(policy.thresholds) != self.stage_count - 1:
            self.counters["policies_refused"] += 1
        elif policy.version > self.policy.version:
            self.policy = policy
            # What came before a lower limit stays until it is done.
            self._capacity = max(2 * policy.queue_limit, self._held())

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
        if not state.online:
            self.neighbours.pop(state.device, None)
            return
        known = self.neighbours.get(state.device)
        delay = known.delay if known else None
        if echo := state.echoes.get(self.identity.device):
            round_trip = now - echo.stamp - echo.held_s
            if 0 <= round_trip <= self.policy.silence_s:
                delay = smooth(delay, round_trip / 2)
        self.neighbours[state.device] = Neighbour(state, now, delay)

    def _hold(self, stages: frozenset[int]) -> None:
        """Tasks of a stage given up must leave; those of a stage gained may stay."""
        self.stages = stages
        waiting, self.input = self.input, deque()
        for task in waiting:
            (self.input if task.stage in stages else self.output).append(task)

    def _take(self, task: Task) -> list[Effect]:
        self.counters["arrived"] += 1
        if not self._seen.add(task.key) or self._is_ahead(task):
            return self._ignore(task)
        if task.stage > self.stage_count:
            reason = f"stage {task.stage} of {self.stage_count} does not exist"
            return [DropInput(task), self._failure(task, reason)]
        queue = self.input if task.stage in self.stages else self.output
        limit = self.policy.queue_limit
        # Both: a task that changes queues here always has a place.
        if len(queue) >= limit or self._held() >= 2 * limit:
            reason = f"queue of {self.identity.device} is full"
            return [DropInput(task), self._failure(task, reason, retry=True)]
        self._enqueue(queue, task)
        return []

    def _is_ahead(self, task: Task) -> bool:
        """Whether the same frame waits or runs here at this stage or a later one, in any attempt.

        When frames are slow to answer their sources try again; running both attempts would make
        everything slower still.
        """
        if (running := self.running) and running.frame == task.frame and running.stage >= task.stage:
            return True
        stages = range(task.stage, self.stage_count + 1)
        return any((task.sensor, task.frame_id, stage) in self._queued for stage in stages)

    def _ignore(self, duplicate: Task) -> list[Effect]:
        """A second delivery, or another attempt at what waits here and will be done anyway."""
        self.counters["duplicates"] += 1
        _, attempt = self._queued.get(duplicate.work, (0, 0))
        return [] if attempt == duplicate.attempt else [DropInput(duplicate)]

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
        following = replace(task, stage=task.stage + 1, size=event.size)
        where = exits.after_stage(
            leaves_here=exits.leaves(event.score, task.stage, self.policy.thresholds),
            holds_next=following.stage in self.stages,
            input_length=len(self.input),
            output_length=len(self.output),
            output_threshold=self.policy.output_threshold,
        )
        if where is exits.Next.EXIT:
            self.counters["exits"] += 1
            outcome = self._outcome(task, label=event.label, score=event.score)
            return [DropInput(following), ReportOutcome(task.source, outcome)]
        if not self._seen.add(following.key) or self._is_ahead(following):
            return self._ignore(following)
        self._enqueue(self.input if where is exits.Next.INPUT else self.output, following)
        return []

    def _work(self) -> list[Effect]:
        """Run the head of I_n, or the head of O_n when it has waited longer and may run here.

        By the published rules a task in O_n waits until a neighbour compares well: for ever if none
        does, or if I_n empties and with it the wait to compare with. Here O_n never costs a task more
        time than I_n would have. With a full O_n the worker takes back or pauses: its input queue
        fills, and its neighbours stop sending.
        """
        if self.running is not None:
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
            holders = [n for n in self.neighbours.values() if stage in n.state.stages]
            while holders and self.output.holds(stage):
                target = self._target(holders, required=stage not in self.stages)
                if target is None:
                    break
                task = self.output.pop(stage)
                del self._queued[task.work]
                self._seen.discard(task.key)  # it may be handed back when the other gives the stage up
                target.unreported += 1
                self.counters["sent"] += 1
                effects.append(SendTask(target.state.device, replace(task, hops=task.hops + 1)))
        return effects

    def _target(self, holders: list[Neighbour], *, required: bool) -> Neighbour | None:
        limit = self.policy.queue_limit
        if required:
            return offload.required_target(holders, queue_limit=limit, rng=self.rng)
        backlog = len(self.input) + (self.running is not None)
        return offload.optional_target(
            holders,
            output_length=len(self.output),
            own_wait=backlog * (self.service_s or 0.0),
            queue_limit=limit,
            rng=self.rng,
        )

    def _outcome(self, task: Task, **result: object) -> Outcome:
        return Outcome(
            task.sensor,
            task.frame_id,
            task.attempt,
            task.stage,
            self.identity.device,
            task.hops,
            **result,  # type: ignore[arg-type]
        )

    def _failure(self, task: Task, reason: str, *, retry: bool = False) -> ReportOutcome:
        self.counters["failures"] += 1
        return ReportOutcome(task.source, self._outcome(task, reason=reason[:500], retry=retry))
