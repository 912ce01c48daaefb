"""Whatever the order: versions rise, no stage loses its last holder, the last plan comes into force."""

from fleetwork import EVERY, LONG, SOON, STAGES, Fleetwork, held, plan
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mqtt_mdi.core import events
from mqtt_mdi.core.fit import misfit
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan

NAMES = ("a", "b", "c")


class Watched(Fleetwork):
    """Asserts at every publication that no stage is taken from its last holder."""

    def on_policy(self, policy: Policy, origin: str) -> None:
        super().on_policy(policy, origin)
        if origin.endswith(("(letting go)", "(loading)")):
            for stage in EVERY:
                holders = {name for name in self.live() if stage in self.devices[name].stages}
                keep = {n for n in holders if stage in policy.placement.get(n, self.devices[n].started_with)}
                assert keep or not holders, f"{origin}: nobody would hold stage {stage}"


class Replanning(RuleBasedStateMachine):
    """Devices come, go, hear, load and report, plans are made or fail, in any order; memory has no limit."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Watched(STAGES)
        self.last: Plan | None = None

    @initialize()
    def begin(self) -> None:
        self.machine.join("a", *EVERY, role="source")

    def placement(self, data: st.DataObject, names: list[str]) -> dict[str, tuple[int, ...]]:
        """Any placement of these devices that has every stage."""
        own = {name: data.draw(st.sets(st.sampled_from(EVERY)), name) for name in names}
        for stage in EVERY:
            if not any(stage in stages for stages in own.values()):
                own[data.draw(st.sampled_from(names), f"holder of {stage}")].add(stage)
        return {name: tuple(sorted(stages)) for name, stages in own.items()}

    @rule(name=st.sampled_from(NAMES), stages=st.sets(st.sampled_from(EVERY)))
    def comes_or_goes(self, name: str, stages: set[int]) -> None:
        if name not in self.machine.live():
            self.machine.join(name, *sorted(stages))
        elif name != "a":
            self.machine.leave(name)

    @rule(name=st.sampled_from(NAMES))
    def starts_anew(self, name: str) -> None:
        if name in self.machine.live():
            device = self.machine.devices[name]
            device.boot, device.stages = device.boot + 1, set()
            self.machine.hear(name)
            self.machine.report(name)

    @rule(name=st.sampled_from(NAMES))
    def hears(self, name: str) -> None:
        if name in self.machine.live():
            self.machine.hear(name)

    @rule(name=st.sampled_from(NAMES))
    def loads(self, name: str) -> None:
        if name in self.machine.live():
            self.machine.load(name)

    @rule(name=st.sampled_from(NAMES), seconds=st.sampled_from([0.001, 0.01]))
    def reports(self, name: str, seconds: float) -> None:
        if name in self.machine.live():
            self.machine.report(name, service_by_stage={1: seconds})

    @rule()
    def all_obey(self) -> None:
        self.machine.all_obey()

    @rule(seconds=st.sampled_from([0.1, SOON, LONG]))
    def time_passes(self, seconds: float) -> None:
        self.machine.advance(seconds)

    @precondition(lambda self: self.machine.asked is not None)
    @rule(data=st.data())
    def is_solved(self, data: st.DataObject) -> None:
        assert self.machine.asked is not None
        self.last = plan(self.placement(data, sorted(self.machine.asked.system.names)))
        self.machine.solve(self.last)

    @precondition(lambda self: self.machine.asked is not None)
    @rule()
    def is_not_solved(self) -> None:
        self.machine.solve("no time")

    @rule(window=st.integers(1, 99))
    def operator_asks(self, window: int) -> None:
        assert self.machine.patch(window=window).reason is None

    @invariant()
    def what_is_published_fits(self) -> None:
        assert misfit(self.machine.policy, self.machine.coordinator.stage_count) is None

    def teardown(self) -> None:
        """Whatever happened: a last plan for who is there comes into force, whole."""
        machine = self.machine
        if not machine.devices:
            return
        machine.all_obey()
        machine.advance(LONG + SOON)
        if machine.asked is not None:
            machine.solve("the fleet changes")
        machine.tell(events.PatchRequested({"window": 64}))
        machine.advance(LONG + SOON)
        names = machine.live()
        wanted = plan({name: (1 + n % STAGES,) if n else EVERY for n, name in enumerate(names)})
        machine.settle(wanted)
        assert machine.policy.placement == wanted.placement
        assert machine.policy.shares == wanted.shares
        assert machine.policy.thresholds == wanted.thresholds
        assert {name: held(machine)[name] for name in names} == wanted.placement
        version = machine.policy.version
        machine.settle(wanted)
        assert machine.policy.version == version


Replanning.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestReplanning = Replanning.TestCase
