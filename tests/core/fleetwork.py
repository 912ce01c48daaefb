"""A coordinator with devices that hear policies, load stages and report when their user lets them."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

from mqtt_mdi.core import effects, events
from mqtt_mdi.core.coordinator import Coordinator
from mqtt_mdi.core.ledger import Tally
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan, StageProfile
from mqtt_mdi.core.types import DeviceState

STAGES = 3
EVERY = (1, 2, 3)
STAGE_BYTES = 100
LONG = Policy(thresholds=()).planning.loading_s
SOON = Policy(thresholds=()).planning.interval_s


def profiles(count: int) -> tuple[StageProfile, ...]:
    """Stages of equal memory, each asking for as many million multiply-adds as its number."""
    return tuple(StageProfile(k * 1_000_000, 1000, STAGE_BYTES) for k in range(1, count + 1))


def plan(placement: dict[str, tuple[int, ...]], reason: str = "as told", **fields: Any) -> Plan:  # noqa: ANN401
    """A plan whose shares send each stage in equal parts to those that hold it."""
    stages = sorted({k for own in placement.values() for k in own})
    holders = {k: [n for n, own in placement.items() if k in own] for k in stages}
    split = {k: dict.fromkeys(names, 1 / len(names)) for k, names in holders.items()}
    given = {
        "rate": 100.0,
        "limit": 100.0,
        "thresholds": (0.7, 0.7),
        "shares": dict.fromkeys(placement, split),
        **fields,
    }
    return Plan(placement=placement, reason=reason, **given)


@dataclass
class Device:
    """A device as its process would be: what it was started with, holds, wants and has heard."""

    started_with: tuple[int, ...] = ()
    memory: int | None = None
    role: str = "device"
    boot: int = 1
    online: bool = True
    stages: set[int] = field(default_factory=set)
    heard: Policy | None = None
    told: dict[str, Any] = field(default_factory=dict)


class Fleetwork:
    """Nothing happens by itself: policies wait until heard, stages until loaded, plans until solved."""

    def __init__(self, stage_count: int = STAGES, **policy: object) -> None:
        given = {
            "version": 1,
            "thresholds": [0.8] * (stage_count - 1),
            "strategy": "planner",
            "silence_s": 600,
            **policy,
        }
        first = Policy.model_validate(given)
        self.coordinator = Coordinator(first, profiles(stage_count), Tally(), Random(1))
        self.now = 0.0
        self.devices: dict[str, Device] = {}
        self.published: list[tuple[Policy, str]] = []
        self.decisions: list[str] = []
        self.asked: effects.SolvePlan | None = None
        self.answers: list[effects.AnswerPatch] = []
        self.timers: dict[str, float] = {}
        self.tell(events.Started())

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.coordinator.policy

    def tell(self, event: object) -> None:
        """Give the coordinator an event and carry out its orders."""
        for effect in self.coordinator.handle(event, self.now):  # type: ignore[arg-type]
            match effect:
                case effects.SetTimer(key, at):
                    self.timers[key] = at
                case effects.PublishPolicy(policy, origin):
                    self.on_policy(policy, origin)
                case effects.SolvePlan():
                    assert self.asked is None, "asked for two plans at once"
                    self.asked = effect
                case effects.RecordDecision(reason):
                    self.decisions.append(reason)
                case effects.AnswerPatch():
                    self.answers.append(effect)

    def on_policy(self, policy: Policy, origin: str) -> None:
        """A policy is published."""
        assert not self.published or policy.version > self.published[-1][0].version
        self.published.append((policy, origin))

    def advance(self, seconds: float) -> None:
        """Time passes; timers fire in order."""
        until = self.now + seconds
        while min(self.timers.values()) <= until:
            key = min(self.timers, key=lambda k: self.timers[k])
            self.now = max(self.now, self.timers.pop(key))
            self.tell(events.TimerFired(key))
        self.now = until

    def join(self, name: str, *stages: int, **fields: Any) -> None:  # noqa: ANN401
        """A device starts, with the retained policy, and reports."""
        boot = self.devices[name].boot + 1 if name in self.devices else 1
        self.devices[name] = Device(stages, boot=boot, **fields)
        self.hear(name)
        self.load(name)
        self.report(name)

    def leave(self, name: str) -> None:
        """A device dies; its last will is heard."""
        device = self.devices[name]
        device.online, device.stages = False, set()
        self.tell(events.NeighbourLost(name))

    def wanted(self, name: str) -> tuple[int, ...]:
        """What a device is to hold by the policy that it heard last."""
        device = self.devices[name]
        assert device.heard is not None
        return device.heard.placement.get(name, device.started_with)

    def hear(self, name: str) -> None:
        """A device hears the policy in force and lets go at once of what it is not to hold."""
        device = self.devices[name]
        device.heard = self.policy
        device.stages &= set(self.wanted(name))

    def load(self, name: str) -> None:
        """A device has loaded all that it is to hold."""
        self.devices[name].stages = set(self.wanted(name))

    def report(self, name: str, **fields: Any) -> None:  # noqa: ANN401
        """A device tells its state; what is given it says from now on."""
        device = self.devices[name]
        assert device.heard is not None
        device.told.update(fields)
        state = DeviceState(
            name,
            f"boot-{device.boot}",
            role=device.role,  # type: ignore[arg-type]
            memory=device.memory,
            stages=tuple(sorted(device.stages)),
            policy_version=device.heard.version,
            **device.told,
        )
        self.tell(events.NeighbourReported(state))

    def all_obey(self) -> None:
        """Every live device hears, loads and reports."""
        for name in self.live():
            self.hear(name)
            self.load(name)
            self.report(name)

    def live(self) -> list[str]:
        """The devices that are online."""
        return [name for name, device in self.devices.items() if device.online]

    def solve(self, answer: Plan | str) -> None:
        """The solver is done: a plan, or why there is none."""
        assert self.asked is not None, "no plan was asked for"
        self.asked = None
        solved = events.PlanSolved(None, answer) if isinstance(answer, str) else events.PlanSolved(answer)
        self.tell(solved)

    def patch(self, **changes: object) -> effects.AnswerPatch:
        """An operator asks for a change."""
        self.tell(events.PatchRequested(changes))
        return self.answers[-1]

    def settle(self, answer: Plan | None = None) -> None:
        """All hear, load and report, and a plan that is asked for is made, until nothing changes."""
        for _ in range(10):
            before = self.policy.version
            self.advance(self.policy.planning.interval_s)
            if self.asked is not None and answer is not None:
                self.solve(answer)
            self.all_obey()
            if self.policy.version == before and self.asked is None:
                return
        raise AssertionError("the policy never came to rest")


def held(machine: Fleetwork) -> dict[str, tuple[int, ...]]:
    """The stages that each device holds."""
    return {name: tuple(sorted(device.stages)) for name, device in machine.devices.items()}


FIRST = plan({"a": (1, 2), "b": (3,)}, "first", rate=100.0)
SECOND = plan({"a": (1,), "b": (2, 3)}, "second", rate=200.0)


def fleet(**policy: object) -> Fleetwork:
    """Two devices, each started with everything; no plan yet."""
    machine = Fleetwork(STAGES, **policy)
    machine.join("a", *EVERY, role="source")
    machine.join("b", *EVERY)
    return machine


def settled(answer: Plan = FIRST) -> Fleetwork:
    """A fleet that has come to rest with a plan."""
    machine = fleet()
    machine.settle(answer)
    machine.decisions.clear()
    machine.published.clear()
    return machine


def drifted(machine: Fleetwork, name: str = "a", seconds: float = 9.0) -> None:
    """A device reports another time for stage 1, which is a reason to plan anew."""
    machine.report(name, service_by_stage={1: seconds})
    machine.advance(SOON)
