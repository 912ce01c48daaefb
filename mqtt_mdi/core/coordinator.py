"""The coordinator: keeps the policy, the books of results, and the list of devices alive."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil
from random import Random
from typing import Any

from pydantic import ValidationError

from mqtt_mdi.core import events
from mqtt_mdi.core.effects import (
    AnswerPatch,
    CloseWindow,
    PublishPolicy,
    RecordDecision,
    RecordDevice,
    SetTimer,
    SolvePlan,
)
from mqtt_mdi.core.fit import misfit
from mqtt_mdi.core.fleet import Fleet
from mqtt_mdi.core.ledger import Latencies, Tally
from mqtt_mdi.core.policy import DEFAULT_STRATEGY, LATEST_VERSION, Policy, merge_patch
from mqtt_mdi.core.replanning import Change, Replanner
from mqtt_mdi.core.strategies.registry import STRATEGIES
from mqtt_mdi.core.system import StageProfile
from mqtt_mdi.core.thresholds import next_threshold
from mqtt_mdi.core.types import DeviceState, Window

Event = (
    events.Started
    | events.TimerFired
    | events.PolicyChanged
    | events.PatchRequested
    | events.ResultsStored
    | events.NeighbourReported
    | events.NeighbourLost
    | events.PlanSolved
)
Effect = SetTimer | PublishPolicy | AnswerPatch | RecordDevice | CloseWindow | SolvePlan | RecordDecision

WINDOW = "window"
WINDOW_S = 1.0
ADAPT = "adapt"
PLAN = "plan"
LATENCIES_KEPT = 4096
FOLLOWED_VERSIONS = LATEST_VERSION // 2
"""Whatever others claim, versions are left for the changes to come."""


class Coordinator:
    """The machine beside the database. It is not on the path of any frame."""

    def __init__(
        self, policy: Policy, profiles: tuple[StageProfile, ...], totals: Tally, rng: Random
    ) -> None:
        self.policy = policy
        self.stage_count = len(profiles)
        self.fleet = Fleet(profiles)
        self.replanner = Replanner()
        self.totals = totals
        self.latencies = Latencies()
        self.devices: dict[str, DeviceState] = {}
        self.seen_at: dict[str, float] = {}
        self._tally = Tally()
        self._latencies = 0
        self._window_began: float | None = None
        self._stir: str | None = None
        self._rng = rng

    def handle(self, event: Event, now: float) -> list[Effect]:
        """Take one fact; return orders."""
        effects: list[Effect] = []
        match event:
            case events.Started():
                self._window_began = now
                self.replanner.begin(self.policy, now)
                effects = [PublishPolicy(self.policy, "start"), SetTimer(WINDOW, now + WINDOW_S)]
                effects += [SetTimer(key, now + period) for key, period in _periods(self.policy).items()]
            case events.TimerFired(key):
                effects = self._fire(key, now)
            case events.PlanSolved():
                self.replanner.solved(event, self.policy, now)
                effects = self._plan(now)
            case events.PolicyChanged(policy):
                effects = self._adopt(policy, now)
            case events.PatchRequested(patch, request):
                effects = self._patch(patch, request, now)
            case events.ResultsStored():
                self._count(event)
            case events.NeighbourReported(state):
                effects = self._hear(state, now)
            case events.NeighbourLost(device) if device in self.devices:
                effects = self._hear(replace(self.devices[device], online=False), now)
            case _:
                pass
        return effects

    def _fire(self, key: str, now: float) -> list[Effect]:
        if key == WINDOW:
            effects = [*self._forget_silent(now), *self._overtake(), self._close_window(now)]
            return [*effects, SetTimer(WINDOW, now + WINDOW_S)]
        if key == ADAPT:
            return [*self._adapt(), SetTimer(ADAPT, now + self.policy.adaptation.period_s)]
        if key == PLAN:
            return [*self._plan(now), SetTimer(PLAN, now + self.policy.planning.interval_s)]
        return []

    def _adopt(self, policy: Policy, now: float) -> list[Effect]:
        """A retained policy that the database does not know: another database was here before."""
        if policy.version < self.policy.version or _same(policy, self.policy):
            return []
        if policy.version > FOLLOWED_VERSIONS:
            return [PublishPolicy(self.policy, f"replaces version {policy.version}, which is out of reach")]
        if misfit(policy, self.stage_count) is not None:
            return [self._outvote(policy.version, "replaces a policy of another network")]
        known = self.policy
        timers = self._obey(policy, now)
        if policy.version == known.version:  # devices may run either under this version
            return [self._outvote(policy.version, "retained"), *timers]
        return [PublishPolicy(policy, "retained"), *timers]

    def _overtake(self) -> list[Effect]:
        """Devices that outlived a coordinator with another database heed no version below theirs."""
        latest = max((state.policy_version for state in self.devices.values() if state.online), default=0)
        if not self.policy.version < latest <= FOLLOWED_VERSIONS:
            return []
        return [self._outvote(latest, "devices ran a later version")]

    def _outvote(self, version: int, reason: str) -> Effect:
        """Put the policy in force under the version after another one's."""
        self.policy = self.policy.model_copy(update={"version": version + 1})
        return PublishPolicy(self.policy, reason)

    def _obey(self, policy: Policy, now: float) -> list[Effect]:
        """Put a policy in force; a period that changes begins anew."""
        before, self.policy = _periods(self.policy), policy
        return [SetTimer(key, now + s) for key, s in _periods(policy).items() if s != before[key]]

    def _patch(self, patch: Mapping[str, Any], request: object, now: float) -> list[Effect]:
        version = self.policy.version
        if "version" in patch:
            return [AnswerPatch(request, version, "version: given by the coordinator, leave it out")]
        base = self.policy.model_dump(mode="json")
        chosen = patch.get("strategy", self.policy.strategy)
        fresh = (DEFAULT_STRATEGY if chosen is None else chosen) != self.policy.strategy
        if fresh:  # what another strategy laid out means nothing to this one
            base |= {"placement": {}, "shares": {}}
        merged = merge_patch(base, dict(patch)) | {"version": version + 1}
        try:
            policy = Policy.model_validate_json(json.dumps(merged), strict=True)
        except ValidationError as error:
            return [AnswerPatch(request, version, _faults(error))]
        if (reason := misfit(policy, self.stage_count)) is not None:
            return [AnswerPatch(request, version, reason)]
        if fresh and "placement" not in patch and (placement := self._layout(policy)) is not None:
            policy = policy.model_copy(update={"placement": placement})
        timers = self._obey(policy, now)
        self.replanner.want("policy/set", policy, now)
        return [PublishPolicy(policy, "policy/set"), AnswerPatch(request, policy.version), *timers]

    def _change(self, change: Change) -> Effect:
        """Put some fields of the policy in force."""
        fields = dict(change.fields) | {"version": self.policy.version + 1}
        self.policy = self.policy.model_copy(update=fields)
        return PublishPolicy(self.policy, change.reason)

    def _plan(self, now: float) -> list[Effect]:
        """Let the planner see what is new, where the strategy plans; else lay stages out by its rule."""
        if not STRATEGIES[self.policy.strategy].planned:
            return self._arrange(now)
        effects: list[Effect] = []
        if (order := self.replanner.consider(self.fleet, self.policy, now)) is not None:
            effects.append(order)
        while (change := self.replanner.proceed(self.fleet, self.policy, now)) is not None:
            if not self._holds(change):
                effects.append(self._change(change))
        effects += [RecordDecision(reason) for reason in self.replanner.decisions]
        self.replanner.decisions.clear()
        return effects

    def _holds(self, change: Change) -> bool:
        """Whether a change would change nothing."""
        return all(getattr(self.policy, name) == value for name, value in change.fields.items())

    def _arrange(self, now: float) -> list[Effect]:
        """Lay stages out anew after devices came or went, once all had time to tell that they are there."""
        if self._stir is None or now < self.replanner.earliest:
            return []
        reason, self._stir = f"{self.policy.strategy}: {self._stir}", None
        placement = self._layout(self.policy)
        if placement is None or placement == self.policy.placement:
            return []
        return [self._change(Change({"placement": placement}, reason))]

    def _layout(self, policy: Policy) -> dict[str, tuple[int, ...]] | None:
        """Where a policy's strategy wants the stages by its own rule, if it has one."""
        arrange = STRATEGIES[policy.strategy].arrange
        return None if arrange is None else dict(arrange(self.fleet.system(policy)))

    def _adapt(self) -> list[Effect]:
        """Algorithm 4, on the fullest of the sources' queues."""
        rule = self.policy.adaptation
        queues = [
            state.input_queue + state.output_queue
            for state in self.devices.values()
            if state.online and state.role == "source"
        ]
        if rule.rule != "adaptive" or not queues:
            return []
        thresholds = tuple(next_threshold(t, max(queues), rule) for t in self.policy.thresholds)
        if thresholds == self.policy.thresholds:
            return []
        return [self._change(Change({"thresholds": thresholds}, f"load: {max(queues)} tasks queued"))]

    def _hear(self, state: DeviceState, now: float) -> list[Effect]:
        known = self.devices.get(state.device)
        if not state.online and known is not None:
            state = replace(known, online=False)
        self.devices[state.device] = state
        self.seen_at[state.device] = now
        self.fleet.hear(state, now)
        if known is not None and _alike(known, state):
            return []
        effects: list[Effect] = []
        if known is None or (known.online, known.stages, known.boot) != (
            state.online,
            state.stages,
            state.boot,
        ):
            effects.append(RecordDevice(state))
        if known is None or known.online != state.online:
            self._stir = f"{state.device} {'joined' if state.online else 'left'}"
            self.replanner.look()
        return effects + self._plan(now)

    def _forget_silent(self, now: float) -> list[Effect]:
        silent = [
            state
            for device, state in self.devices.items()
            if state.online and now - self.seen_at[device] > self.policy.silence_s
        ]
        return [effect for state in silent for effect in self._hear(replace(state, online=False), now)]

    def _count(self, stored: events.ResultsStored) -> None:
        answers = [(r.exit_stage, r.latency_ms) for r in stored.results if r.exit_stage is not None]
        exits = Counter(stage for stage, _ in answers)
        for tally in (self._tally, self.totals):
            tally.duplicates += stored.duplicates
            tally.graded += len(stored.graded)
            tally.correct += sum(stored.graded)
            tally.failed += len(stored.results) - len(answers)
            tally.answered += len(answers)
            tally.exits.update(exits)
        self.totals.correct += stored.corrected
        for _, latency_ms in answers:
            self._sample(latency_ms)
            self.latencies.add(latency_ms / 1000)

    def _sample(self, latency_ms: float) -> None:
        """Keep a uniform sample of the window's latencies (Vitter's algorithm R)."""
        kept = self._tally.latencies_ms
        self._latencies += 1
        if len(kept) < LATENCIES_KEPT:
            kept.append(latency_ms)
        elif (place := self._rng.randrange(self._latencies)) < LATENCIES_KEPT:
            kept[place] = latency_ms

    def _close_window(self, now: float) -> Effect:
        began = now if self._window_began is None else self._window_began
        window = self._window(self._tally, now - began)
        self._tally, self._latencies, self._window_began = Tally(), 0, now
        online = sum(state.online for state in self.devices.values())
        return CloseWindow(window, self._window(self.totals, 0.0), online)

    def _window(self, tally: Tally, seconds: float) -> Window:
        return Window(
            seconds,
            tally.answered,
            tally.failed,
            tally.duplicates,
            tally.graded,
            tally.correct,
            exit_counts(tally.exits, self.stage_count),
            quantile(tally.latencies_ms, 0.5),
            quantile(tally.latencies_ms, 0.95),
        )


def _alike(a: DeviceState, b: DeviceState) -> bool:
    """Whether two states of a device call for nothing to be done."""
    return (a.online, a.stages, a.boot, a.policy_version) == (b.online, b.stages, b.boot, b.policy_version)


def _periods(policy: Policy) -> dict[str, float]:
    """Seconds between two firings of the timers that the policy sets."""
    return {ADAPT: policy.adaptation.period_s, PLAN: policy.planning.interval_s}


def _same(a: Policy, b: Policy) -> bool:
    """Whether two policies say the same on the wire."""
    return a.model_dump(mode="json") == b.model_dump(mode="json")


def exit_counts(exits: Counter[int], stage_count: int) -> tuple[int, ...]:
    """Answers at each exit, first to last."""
    return tuple(exits[stage] for stage in range(1, stage_count + 1))


def quantile(values: Iterable[float], share: float) -> float | None:
    """The smallest value that at least `share` of the values do not exceed; None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


def _faults(error: ValidationError) -> str:
    """What is wrong with a policy, field by field."""
    return "; ".join(
        f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors(include_url=False)[:3]
    )
