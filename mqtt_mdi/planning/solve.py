"""The planner as a function that shells can be given; scipy and a trace are read when first asked."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from mqtt_mdi.bundle.trace import HELD_OUT_FILE, ExitTrace, read_trace
from mqtt_mdi.core.policy import Policy
from mqtt_mdi.core.system import Plan, System
from mqtt_mdi.errors import BundleError, ConfigError


def solver(bundle: Path) -> Callable[[System, Policy], Plan]:
    """What makes plans for the network of a bundle; it raises ConfigError where there is none."""

    @cache
    def trace() -> ExitTrace:
        try:
            return read_trace(bundle, HELD_OUT_FILE)
        except BundleError as error:
            raise ConfigError(
                f"planning needs what the bundle's exits say of the samples held out: {error}"
            ) from error

    def solve(system: System, policy: Policy) -> Plan:
        try:
            from mqtt_mdi.planning.placement import Search  # noqa: PLC0415 -- scipy is an extra
            from mqtt_mdi.planning.planner import Goal, plan  # noqa: PLC0415
        except ModuleNotFoundError as error:
            raise ConfigError(f"planning needs {error.name}: pip install 'mqtt-mdi[plan]'") from error
        rule = policy.planning
        value = rule.accuracy if rule.goal == "accuracy" else rule.rate
        goal = Goal(rule.goal, value or 0.0)
        return plan(system, goal, trace(), policy.thresholds, Search(rule.time_limit_s))

    return solve
