"""How one plan follows another while frames are in flight: load, route, let go; and when to plan anew."""

import pytest
from fleetwork import (
    EVERY,
    FIRST,
    LONG,
    SECOND,
    SOON,
    STAGE_BYTES,
    STAGES,
    Fleetwork,
    drifted,
    fleet,
    held,
    plan,
    settled,
)

from mqtt_mdi.core.policy import WIDEST_WINDOW, Adaptation, Policy

# The order of a move


def test_a_move_loads_then_routes_then_lets_go() -> None:
    machine = settled()
    assert held(machine) == {"a": (1, 2), "b": (3,)}
    drifted(machine)
    machine.solve(SECOND)
    # Load: the old holder of stage 2 keeps it, and nothing is sent elsewhere yet.
    [(loading, origin)] = machine.published
    assert loading.placement == {"a": (1, 2), "b": (2, 3)}
    assert loading.shares == FIRST.shares
    assert origin.endswith("(loading)")
    machine.hear("a")
    machine.report("a")
    machine.hear("b")
    machine.report("b")  # heard, not loaded
    assert len(machine.published) == 1
    # Route: when all have loaded.
    machine.load("b")
    machine.report("b")
    [_, (routing, origin)] = machine.published
    assert routing.placement == loading.placement
    assert routing.shares == SECOND.shares
    assert origin.endswith("(routing)")
    # Let go: when all have heard whom to send to.
    machine.hear("b")
    machine.report("b")
    assert len(machine.published) == 2
    assert held(machine) == {"a": (1, 2), "b": (2, 3)}
    machine.hear("a")
    machine.report("a")
    [*_, (done, origin)] = machine.published
    assert done.placement == SECOND.placement
    assert origin.endswith("(letting go)")
    versions = [policy.version for policy, _ in machine.published]
    assert versions == list(range(versions[0], versions[0] + 3))
    machine.settle()
    assert len(machine.published) == 3


def test_routing_brings_the_plans_thresholds_and_enough_frames() -> None:
    rule = {"tasks_a_device": 5, "depth_s": 0.1}
    machine = fleet(planning=rule)
    machine.advance(SOON)
    machine.solve(plan({"a": EVERY, "b": EVERY}, rate=123.0, thresholds=(0.9, 0.1)))
    assert machine.policy.thresholds == (0.9, 0.1)
    assert machine.policy.window == 2 * 5 + 13


def test_nothing_is_let_go_for_a_device_that_left_while_the_plan_was_made() -> None:
    machine = settled(plan({"a": EVERY, "b": ()}))
    drifted(machine)
    machine.leave("b")
    machine.solve(plan({"a": (1,), "b": (2, 3)}))
    machine.all_obey()
    assert held(machine)["a"] == EVERY
    machine.advance(LONG)
    assert machine.asked is not None
    assert machine.policy.placement["a"] == EVERY


def test_a_plan_widens_the_window_no_further_than_a_policy_may() -> None:
    machine = fleet(planning={"depth_s": 60})
    machine.advance(SOON)
    machine.solve(plan({"a": EVERY, "b": EVERY}, rate=1e6))
    assert machine.policy.window == WIDEST_WINDOW
    assert Policy.model_validate(machine.policy.model_dump()) == machine.policy


@pytest.mark.parametrize(
    ("memory", "meanwhile"),
    [(None, EVERY), (3, EVERY), (2, (1, 2)), (1, (2,)), (0, (2,))],
)
def test_what_a_device_holds_meanwhile_fits_its_memory(
    memory: int | None, meanwhile: tuple[int, ...]
) -> None:
    machine = Fleetwork(STAGES)
    room = None if memory is None else memory * STAGE_BYTES
    machine.join("a", 1, 3, role="source", memory=room)
    machine.advance(SOON)
    machine.solve(plan({"a": (2,)}))
    assert machine.published[-1][0].placement == {"a": meanwhile}


def test_a_stage_that_the_network_lacks_is_not_kept() -> None:
    machine = Fleetwork(STAGES)
    machine.join("a", 1, 9, role="source")
    machine.advance(SOON)
    machine.solve(plan({"a": (2,)}))
    assert machine.published[-1][0].placement == {"a": (1, 2)}


def test_no_version_is_spent_on_what_changes_nothing() -> None:
    machine = settled()
    drifted(machine)
    before = machine.policy
    machine.solve(FIRST)
    machine.settle(FIRST)
    assert machine.policy is before
    assert not machine.published
    assert machine.decisions == ["a takes 9,000 ms for stage 1, 1 ms were planned: first"]


def test_a_move_with_nothing_to_load_routes_at_once() -> None:
    machine = fleet()
    machine.advance(SOON)
    machine.solve(FIRST)
    # Stages are named from now on, where each kept what it was started with before.
    assert [origin.split()[-1] for _, origin in machine.published[1:]] == ["(loading)", "(routing)"]
    assert machine.policy.placement == {"a": EVERY, "b": EVERY}


def test_thresholds_that_move_meanwhile_put_nothing_off() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    machine.all_obey()  # routing is published
    machine.hear("a")
    machine.hear("b")
    version = machine.policy.version
    rule = {"rule": "adaptive", "period_s": 0.1}
    moved = machine.policy.model_copy(update={"adaptation": Adaptation.model_validate(rule)})
    machine.coordinator.policy = moved
    machine.advance(SOON)
    assert machine.policy.version > version
    machine.report("a")
    machine.report("b")
    assert machine.policy.placement == SECOND.placement


# When to plan


def test_the_first_plan_waits_for_a_device() -> None:
    machine = Fleetwork(STAGES)
    machine.advance(10 * SOON)
    assert machine.asked is None
    machine.join("a", *EVERY, role="source")
    assert machine.asked is not None
    assert machine.asked.system.names == {"a"}
    assert machine.asked.policy == machine.policy


def test_who_joins_or_leaves_is_planned_for_by_name() -> None:
    machine = settled()
    machine.join("d", *EVERY)
    machine.join("c", *EVERY)
    assert machine.asked is not None
    assert machine.asked.system.names >= {"a", "b", "d"}
    machine.solve(plan({"a": EVERY, "b": EVERY, "d": EVERY}, "more hands"))
    assert machine.decisions == ["d joined: more hands"]
    machine.advance(SOON)
    machine.solve(plan({"a": EVERY, "b": EVERY, "c": EVERY, "d": EVERY}, "more still"))
    machine.leave("b")
    machine.leave("c")
    machine.join("e", *EVERY)
    machine.advance(SOON)
    machine.solve(plan({"a": EVERY, "d": EVERY, "e": EVERY}, "well"))
    assert machine.decisions == [
        "d joined: more hands",
        "c joined: more still",
        "e joined; b, c left: well",
    ]


def test_plans_keep_their_distance_unless_it_is_long_past() -> None:
    machine = settled()
    machine.join("c", *EVERY)
    assert machine.asked is not None  # the last plan is long ago
    machine.solve(FIRST)
    machine.leave("c")
    assert machine.asked is None
    machine.advance(SOON)
    assert machine.asked is not None


def test_one_plan_at_a_time() -> None:
    machine = fleet()
    machine.advance(SOON)
    machine.join("c", *EVERY)  # `tell` asserts that no second one is asked for
    machine.advance(10 * SOON)
    machine.solve(FIRST)
    assert machine.asked is not None
    assert machine.asked.system.names == {"a", "b", "c"}


def test_what_changes_little_is_let_be() -> None:
    machine = settled()
    machine.report("a", service_by_stage={1: 0.0012})
    machine.advance(10 * SOON)
    assert machine.asked is None
    machine.report("a", service_by_stage={1: 0.002})
    machine.advance(SOON)
    assert machine.asked is not None


def test_drift_waits_for_the_end_of_a_move_but_the_death_of_a_device_does_not() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    drifted(machine, seconds=99.0)
    machine.advance(2 * SOON)
    assert machine.asked is None
    machine.leave("b")
    assert machine.asked is not None


def test_an_operators_change_is_planned_for() -> None:
    machine = settled()
    assert machine.patch(thresholds=[0.1, 0.2]).reason is None
    machine.advance(SOON)
    assert machine.asked is not None
    assert machine.asked.policy.thresholds == (0.1, 0.2)
    machine.solve(plan(dict(FIRST.placement), "as asked", thresholds=(0.1, 0.2)))
    assert machine.decisions == ["policy/set: as asked"]


@pytest.mark.parametrize("when", ["solving", "loading"])
def test_an_operators_change_is_not_undone_by_a_plan_made_before_it(when: str) -> None:
    machine = settled()
    drifted(machine)
    if when == "loading":
        machine.solve(SECOND)
    machine.patch(thresholds=[0.1, 0.2])
    if when == "solving":
        machine.solve(SECOND)
    machine.all_obey()
    machine.all_obey()
    assert machine.policy.thresholds == (0.1, 0.2)
    machine.advance(SOON)
    assert machine.asked is not None
    assert machine.asked.policy.thresholds == (0.1, 0.2)


# What goes wrong


def test_a_death_in_the_middle_of_a_move_voids_it() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    machine.advance(SOON)
    machine.leave("b")
    assert machine.asked is not None
    published = len(machine.published)
    machine.all_obey()
    assert len(machine.published) == published
    machine.settle(plan({"a": EVERY}, "alone"))
    assert machine.policy.placement == {"a": EVERY}
    assert machine.decisions[-1] == "b left: alone"


def test_a_device_that_starts_anew_before_all_let_go_is_waited_for() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    machine.all_obey()  # routing is published
    machine.hear("a")
    machine.report("a")
    machine.devices["b"].boot += 1
    machine.devices["b"].stages = set()
    machine.hear("b")
    machine.report("b")  # it knows whom to send to, and has yet to load
    assert 2 in machine.policy.placement["a"]
    machine.load("b")
    machine.report("b")
    assert machine.policy.placement == SECOND.placement


def test_without_a_plan_the_policy_stays_and_it_is_tried_again() -> None:
    machine = settled()
    drifted(machine)
    before = machine.policy
    machine.solve("stage 3 fits nowhere")
    assert machine.policy is before
    [decision] = machine.decisions
    assert decision.endswith(": no plan: stage 3 fits nowhere; the last policy stays in force")
    machine.advance(LONG - SOON)
    assert machine.asked is None
    machine.advance(2 * SOON)
    machine.solve(SECOND)
    assert machine.decisions[-1].endswith("second")


def test_who_joins_after_a_plan_failed_is_planned_for_sooner() -> None:
    machine = settled()
    drifted(machine)
    machine.solve("too little memory")
    machine.advance(2 * SOON)
    assert machine.asked is None
    machine.join("c", *EVERY)
    assert machine.asked is not None
    assert "c" in machine.asked.system.names


def test_loading_that_never_ends_is_given_up() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    machine.hear("b")
    machine.advance(LONG)
    assert machine.policy.shares == FIRST.shares
    machine.advance(2 * SOON)
    assert machine.decisions[-1].endswith("b did not load in time; the last policy stays in force")
    assert machine.policy.shares == FIRST.shares
    assert machine.policy.placement["a"] == (1, 2)
    machine.all_obey()  # too late
    assert machine.policy.shares == FIRST.shares
    machine.advance(LONG)
    machine.settle(SECOND)
    assert machine.policy.placement == SECOND.placement


def test_who_joins_while_a_plan_fails_is_planned_for_sooner() -> None:
    machine = settled()
    drifted(machine)
    machine.advance(SOON)
    machine.join("c", *EVERY)
    machine.solve("too little memory")
    assert machine.asked is not None
    assert "c" in machine.asked.system.names


def test_who_came_back_while_others_were_planned_for_keeps_what_it_holds() -> None:
    machine = Fleetwork(STAGES)
    machine.join("a", *EVERY, role="source")
    machine.join("b")
    machine.settle(FIRST)
    machine.leave("b")
    machine.join("b")
    assert held(machine)["b"] == (3,)
    machine.solve(plan({"a": EVERY}, "alone"))
    # Nobody else has stage 3 yet, and who plans knows by now that b is there.
    assert machine.published[-1][1] == "b left: alone (loading)"
    assert machine.published[-1][0].placement == {"a": EVERY, "b": (3,)}


def test_who_dies_while_others_load_is_not_waited_for_for_ever() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    machine.leave("b")
    machine.settle(plan({"a": EVERY}))
    assert machine.policy.placement == {"a": EVERY}


def test_who_never_follows_holds_nothing_up_for_good() -> None:
    machine = settled()
    drifted(machine)
    machine.solve(SECOND)
    machine.all_obey()  # all load; b hears no more from now on
    machine.hear("a")
    machine.report("a")
    machine.advance(3 * LONG)
    assert machine.decisions[-1] == "b did not follow the plan: nothing is let go"
    assert machine.policy.placement == {"a": (1, 2), "b": (2, 3)}
    drifted(machine, seconds=30.0)
    assert machine.asked is not None
