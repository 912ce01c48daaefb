"""The planner's thread: one answer to each problem, and none that nobody waits for any more."""

import logging
import threading
from collections.abc import Callable
from queue import Queue

import pytest
from live import PATIENCE_S

from mqtt_mdi.core.events import PlanSolved
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.runtime.solver import Solve, Solver

SYSTEM = System((), {}, ())
POLICY = Policy(thresholds=(0.5,))
PLAN = Plan(1.0, 2.0, (0.5,), {}, {})


class Bench:
    """A solver whose answers can be waited for."""

    def __init__(self, solve: Solve) -> None:
        self.heard: Queue[tuple[PlanSolved, threading.Thread]] = Queue()
        self.solver = Solver(solve, lambda solved: self.heard.put((solved, threading.current_thread())))

    def begin(self, policy: Policy = POLICY) -> None:
        self.solver.begin(SYSTEM, policy)

    def answer(self) -> PlanSolved:
        return self.heard.get(timeout=PATIENCE_S)[0]


def finish(threads: set[threading.Thread]) -> None:
    """Wait for the solver's threads that were started since."""
    for thread in set(threading.enumerate()) - threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def held(plans: dict[int, Plan], may_end: dict[int, threading.Event]) -> Callable[[System, Policy], Plan]:
    """A planner that takes until it is let go; its plans are told apart by the policy's window."""

    def solve(_system: System, policy: Policy) -> Plan:
        assert may_end[policy.window].wait(PATIENCE_S)
        return plans[policy.window]

    return solve


def test_a_plan_is_made_elsewhere_of_what_was_given() -> None:
    given: list[tuple[System, Policy]] = []

    def solve(system: System, policy: Policy) -> Plan:
        given.append((system, policy))
        return PLAN

    bench = Bench(solve)
    bench.begin()
    solved, thread = bench.heard.get(timeout=PATIENCE_S)
    assert solved == PlanSolved(PLAN)
    assert given == [(SYSTEM, POLICY)]
    assert thread is not threading.current_thread()
    assert thread.daemon  # the process may end before the solver does


def test_it_solves_again_and_again() -> None:
    bench = Bench(lambda _system, policy: Plan(float(policy.window), 1.0, (), {}, {}))
    for window in (3, 5, 8):
        bench.begin(Policy(thresholds=(), window=window))
        plan = bench.answer().plan
        assert plan is not None
        assert plan.rate == window


def test_no_plan_comes_with_its_reason() -> None:
    def solve(_system: System, _policy: Policy) -> Plan:
        raise ConfigError("stage 3 fits nowhere")

    bench = Bench(solve)
    bench.begin()
    assert bench.answer() == PlanSolved(None, "stage 3 fits nowhere")


def test_a_fault_of_the_planner_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    broken = [True]

    def solve(_system: System, _policy: Policy) -> Plan:
        if broken.pop():
            raise IndexError("no such row")
        return PLAN

    bench = Bench(solve)
    with caplog.at_level(logging.ERROR):
        bench.begin()
        assert bench.answer() == PlanSolved(None, "internal error: IndexError('no such row')")
    assert "a fault of the planner, please report it" in caplog.text
    assert "no such row" in caplog.text
    broken.append(False)
    bench.begin()
    assert bench.answer().plan is PLAN


def test_a_solver_that_takes_too_long_is_not_heard() -> None:
    threads = set(threading.enumerate())
    may_end = {1: threading.Event()}
    bench = Bench(held({1: PLAN}, may_end))
    bench.begin(Policy(thresholds=(), window=1))
    bench.solver.give_up()
    assert bench.answer() == PlanSolved(None, "the solver did not end in its time")
    may_end[1].set()
    finish(threads)
    assert bench.heard.empty()


def test_what_was_given_up_does_not_answer_for_the_next() -> None:
    threads = set(threading.enumerate())
    other = Plan(9.0, 9.0, (), {}, {})
    may_end = {1: threading.Event(), 2: threading.Event()}
    bench = Bench(held({1: PLAN, 2: other}, may_end))
    bench.begin(Policy(thresholds=(), window=1))
    first = set(threading.enumerate()) - threads
    bench.solver.give_up()
    assert bench.answer().plan is None
    bench.begin(Policy(thresholds=(), window=2))
    may_end[1].set()
    for thread in first:
        thread.join(PATIENCE_S)
    assert bench.heard.empty()
    may_end[2].set()
    assert bench.answer().plan is other
    finish(threads)
    assert bench.heard.empty()


def test_giving_up_when_nothing_is_solved_says_nothing() -> None:
    bench = Bench(lambda _system, _policy: PLAN)
    bench.solver.give_up()
    bench.begin()
    assert bench.answer().plan is PLAN
    bench.solver.give_up()
    assert bench.heard.empty()
