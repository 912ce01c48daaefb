"""When to plan anew, and how to get from one plan to the next while frames are in flight.

A plan comes into force in three steps, each a policy of its own: its holders load and report that they are
ready, then routing moves, then what nobody sends to any more is let go. Frames are nowhere lost: what is on
its way to a device that let a stage go is handed on by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from typing import Any, Literal

from mqtt_mdi.core.effects import SolvePlan
from mqtt_mdi.core.events import PlanSolved
from mqtt_mdi.core.fleet import Fleet, drift
from mqtt_mdi.core.policy import WIDEST_WINDOW, Policy
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.core.types import DeviceState


@dataclass(frozen=True)
class Change:
    """Fields of the policy to put in force, and why."""

    fields: Mapping[str, Any]
    reason: str


@dataclass
class Move:
    """A plan on its way into force: which step comes next, by when devices must have loaded."""

    plan: Plan
    reason: str
    deadline: float
    step: Literal["load", "route", "let go"] = "load"
    routed_by: int | None = None


@dataclass
class Replanner:
    """Watches the fleet for the coordinator.

    `reason` is why a plan is wanted, `asked` why the one being solved was; `system` is what the last was
    made for; `news` whether something happened since. `decisions` gathers what people should hear; the
    coordinator empties it.
    """

    reason: str | None = "first plan"
    asked: str = ""
    system: System | None = None
    plan: Plan | None = None
    move: Move | None = None
    solving: bool = False
    news: bool = False
    earliest: float = 0.0
    not_before: float = 0.0
    decisions: list[str] = field(default_factory=list)

    def begin(self, policy: Policy, now: float) -> None:
        """Let the devices that are there tell of themselves first."""
        self.earliest = self.not_before = now + policy.planning.interval_s

    def want(self, reason: str, policy: Policy, now: float) -> None:
        """Plan anew as soon as may be by this policy; what was planned before is void."""
        self.reason, self.move = reason, None
        self.earliest = min(self.earliest, now + policy.planning.interval_s)
        self.look()

    def look(self) -> None:
        """Something happened: see as soon as may be whether to plan anew, even after giving up."""
        self.news = True
        self.not_before = min(self.not_before, self.earliest)

    def consider(self, fleet: Fleet, policy: Policy, now: float) -> SolvePlan | None:
        """Ask for a plan when there is a reason to."""
        if self.solving or now < self.not_before or not fleet.states:
            return None
        system = fleet.system(policy)
        reason = self.reason or self._change(system, policy)
        if reason is None:
            return None
        self.asked, self.reason, self.news = reason, None, False
        self.solving, self.system, self.move = True, system, None
        self.earliest = self.not_before = now + policy.planning.interval_s
        return SolvePlan(system, policy)

    def solved(self, event: PlanSolved, policy: Policy, now: float) -> None:
        """Begin to put a plan in force, or stay with what there is and try again later."""
        self.solving = False
        if self.reason is not None:  # wanted since it was asked: the plan is for another policy
            return
        if event.plan is None:
            self._give_up(f"no plan: {event.fault}", policy, now)
            return
        reason = f"{self.asked}: {event.plan.reason}"
        self.plan = event.plan
        self.move = Move(event.plan, reason, now + policy.planning.loading_s)
        self.decisions.append(reason)

    def proceed(self, fleet: Fleet, policy: Policy, now: float) -> Change | None:
        """The next step of a move, when the last one is done everywhere; to be called until there is none."""
        move = self.move
        if move is None:
            return None
        states, wanted = fleet.states, move.plan.placement
        ready = {name: set(state.stages) for name, state in states.items()}
        late = [name for name, own in wanted.items() if not set(own) <= ready.get(name, set())]
        match move.step:
            case "load":
                move.step = "route"
                everyone = {**dict.fromkeys(states, ()), **wanted}
                both = {name: _meanwhile(states.get(name), own, fleet) for name, own in everyone.items()}
                return Change({"placement": both}, f"{move.reason} (loading)")
            case "route":
                return self._route(move, late, policy, now)
            case "let go":
                move.routed_by = move.routed_by or policy.version
                late += [name for name, state in states.items() if state.policy_version < move.routed_by]
                return self._let_go(move, late, policy, now)

    def _route(self, move: Move, late: list[str], policy: Policy, now: float) -> Change | None:
        if not late:
            move.step = "let go"
            return Change(_routes(move.plan, policy), f"{move.reason} (routing)")
        if now > move.deadline:
            self._give_up(f"{', '.join(late)} did not load in time", policy, now)
        return None

    def _let_go(self, move: Move, late: list[str], policy: Policy, now: float) -> Change | None:
        if not late:
            self.move = None
            return Change({"placement": dict(move.plan.placement)}, f"{move.reason} (letting go)")
        if now > move.deadline + policy.planning.loading_s:
            self.move = None
            self.decisions.append(f"{', '.join(late)} did not follow the plan: nothing is let go")
        return None

    def _give_up(self, fault: str, policy: Policy, now: float) -> None:
        self.move = None
        self.reason = self.reason or self.asked
        self.not_before = self.earliest if self.news else now + policy.planning.loading_s
        self.decisions.append(f"{self.asked}: {fault}; the last policy stays in force")

    def _change(self, system: System, policy: Policy) -> str | None:
        """What is not as it was when the plan was made."""
        if self.system is None or self.plan is None:
            return None
        came, went = system.names - self.system.names, self.system.names - system.names
        if came or went:
            both = ((came, "joined"), (went, "left"))
            return "; ".join(f"{', '.join(sorted(names))} {verb}" for names, verb in both if names)
        if self.move is not None:
            return None
        return drift(self.system, system, self.plan.placement, policy.planning.drift)


def _meanwhile(state: DeviceState | None, wanted: tuple[int, ...], fleet: Fleet) -> tuple[int, ...]:
    """What a device holds while others get ready: the new stages, and of the old ones what has room."""
    held = set(wanted)
    known = range(1, len(fleet.profiles) + 1)
    for stage in [k for k in state.stages if k in known] if state else ():
        needed = sum(fleet.profiles[k - 1].memory for k in {*held, stage})
        if state and (state.memory is None or needed <= state.memory):
            held.add(stage)
    return tuple(sorted(held))


def _routes(plan: Plan, policy: Policy) -> dict[str, Any]:
    """The fields that say who sends what where, and how many frames are under way."""
    rule = policy.planning
    window = ceil(rule.tasks_a_device * len(plan.placement) + plan.rate * rule.depth_s)
    return {
        "shares": {n: {k: dict(split) for k, split in stages.items()} for n, stages in plan.shares.items()},
        "thresholds": plan.thresholds,
        "window": min(window, WIDEST_WINDOW),
    }
