"""What a change of strategy does to what is laid out, and what strategies without plans lay out."""

import pytest
from fleetwork import EVERY, FIRST, SECOND, SOON, STAGES, Fleetwork, drifted, fleet, held, settled


@pytest.mark.parametrize("strategy", ["mdi-exit", "no-exit"])
def test_another_strategy_voids_what_the_last_laid_out(strategy: str) -> None:
    machine = settled()
    assert machine.patch(strategy=strategy).version == machine.policy.version
    assert (machine.policy.placement, machine.policy.shares) == ({}, {})
    machine.settle()
    assert held(machine) == {"a": EVERY, "b": EVERY}
    machine.advance(100.0)
    assert machine.asked is None


def test_what_comes_with_the_patch_holds() -> None:
    machine = fleet(strategy="ddi")
    machine.advance(SOON)
    assert machine.policy.placement == {"a": EVERY, "b": EVERY}
    machine.patch(strategy="planner", placement={"a": [1], "b": [2, 3]}, shares={"a": {"2": {"b": 1.0}}})
    assert machine.policy.placement == {"a": (1,), "b": (2, 3)}
    assert machine.policy.shares == {"a": {2: {"b": 1.0}}}


def test_a_patch_names_all_that_is_placed_under_its_strategy() -> None:
    machine = fleet(strategy="ddi")
    machine.advance(SOON)
    machine.patch(strategy="mdi-exit", placement={"a": [1]})
    assert machine.policy.placement == {"a": (1,)}


def test_a_change_of_strategy_is_one_policy() -> None:
    machine = settled()
    version = machine.policy.version
    machine.patch(strategy="ddi")
    assert machine.policy.version == version + 1
    assert machine.policy.placement == {"a": EVERY, "b": EVERY}


def test_a_coordinator_that_starts_waits_for_all_to_tell_before_it_lays_out() -> None:
    machine = Fleetwork(STAGES, strategy="ddi", placement={"a": [1], "b": [2, 3]})
    machine.join("a", 1, role="source")
    assert machine.policy.placement == {"a": (1,), "b": (2, 3)}
    machine.join("b", 2, 3)
    machine.advance(SOON)
    assert machine.policy.placement == {"a": EVERY, "b": EVERY}


def test_no_strategy_is_the_default_one() -> None:
    machine = fleet(strategy="mdi-exit", placement={"a": [1]})
    assert machine.patch(strategy=None).reason is None
    assert machine.policy.placement == {"a": (1,)}
    machine = settled()
    machine.patch(strategy=None)
    assert (machine.policy.strategy, machine.policy.placement) == ("mdi-exit", {})


def test_the_same_strategy_again_voids_nothing() -> None:
    machine = settled()
    machine.patch(strategy="planner", window=9)
    assert machine.policy.placement == FIRST.placement
    assert machine.policy.shares == FIRST.shares


def test_a_strategy_that_lays_out_by_rule_does_so_for_who_is_there() -> None:
    machine = settled()
    machine.patch(strategy="local")
    assert machine.policy.placement == {"a": EVERY, "b": ()}
    machine.join("c", 1)
    assert machine.policy.placement == {"a": EVERY, "b": (), "c": ()}
    assert machine.published[-1][1] == "local: c joined"
    machine.leave("b")
    assert machine.policy.placement == {"a": EVERY, "c": ()}
    version = machine.policy.version
    machine.patch(strategy="ddi")
    assert machine.policy.placement == {"a": EVERY, "c": EVERY}
    machine.all_obey()
    machine.advance(10.0)
    assert machine.policy.version <= version + 2


def test_what_is_laid_out_already_is_not_published_again() -> None:
    machine = Fleetwork(STAGES, strategy="local", placement={"a": EVERY})
    machine.join("a", *EVERY, role="source")
    assert [origin for _, origin in machine.published] == ["start"]


def test_a_plan_that_comes_after_its_strategy_is_not_put_in_force() -> None:
    machine = settled()
    drifted(machine)
    machine.patch(strategy="mdi-exit")
    before = machine.policy
    machine.solve(SECOND)
    machine.all_obey()
    machine.advance(10.0)
    assert machine.policy is before
    assert machine.decisions == []
    # Nor when the planner is called back: what it plans for then is another world.
    machine.patch(strategy="planner")
    machine.all_obey()
    assert machine.policy.shares == {}
    machine.settle(FIRST)
    assert machine.policy.placement == FIRST.placement
    assert machine.decisions == ["policy/set: first"]


def test_nobody_plans_under_other_strategies() -> None:
    machine = Fleetwork(STAGES, strategy="mdi-exit")
    machine.join("a", *EVERY)
    machine.join("b", *EVERY)
    machine.leave("b")
    machine.advance(100.0)
    assert machine.asked is None
    assert len(machine.published) == 1
