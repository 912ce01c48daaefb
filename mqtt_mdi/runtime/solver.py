"""Plans are made in a thread of their own: the coordinator goes on taking results in."""

import logging
import threading
from collections.abc import Callable

from mqtt_mdi.core.events import PlanSolved
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.errors import ConfigError

log = logging.getLogger(__name__)

Solve = Callable[[System, Policy], Plan]
"""Makes a plan; raises ConfigError where there is none."""


def no_planner(_system: System, _policy: Policy) -> Plan:
    """Where nothing better was given."""
    raise ConfigError("this coordinator was started without a planner")


class Solver:
    """Solves one problem at a time and tells `done` once of each, from whichever thread."""

    def __init__(self, solve: Solve, done: Callable[[PlanSolved], None]) -> None:
        self._solve = solve
        self._done = done
        self._job: object | None = None
        self._lock = threading.Lock()

    def begin(self, system: System, policy: Policy) -> None:
        """Start to solve."""
        self._job = job = object()
        threading.Thread(target=self._run, args=(job, system, policy), name="solver", daemon=True).start()

    def give_up(self) -> None:
        """Wait no longer: what comes of the job at hand, if any, is not heard any more."""
        self._end(self._job, PlanSolved(None, "the solver did not end in its time"))

    def _run(self, job: object, system: System, policy: Policy) -> None:
        try:
            solved = PlanSolved(self._solve(system, policy))
        except ConfigError as error:
            solved = PlanSolved(None, str(error))
        except Exception as error:
            log.exception("a fault of the planner, please report it")
            solved = PlanSolved(None, f"internal error: {error!r}")
        self._end(job, solved)

    def _end(self, job: object | None, solved: PlanSolved) -> None:
        with self._lock:
            if job is None or job is not self._job:
                return
            self._job = None
        self._done(solved)
