"""The strategies by name. A new one is a file with a `Strategy` and a call of `register`."""

from mqtt_mdi.core.strategies import ddi, local, mdi_exit, no_exit, pipeline, planner
from mqtt_mdi.core.strategies.strategy import Strategy

STRATEGIES: dict[str, Strategy] = {
    "mdi-exit": mdi_exit.STRATEGY,
    "planner": planner.STRATEGY,
    "no-exit": no_exit.STRATEGY,
    "local": local.STRATEGY,
    "ddi": ddi.STRATEGY,
    "pipeline": pipeline.STRATEGY,
}


def register(name: str, strategy: Strategy) -> None:
    """Make a strategy known to every machine of this process; a name can be taken once."""
    if STRATEGIES.setdefault(name, strategy) != strategy:
        raise ValueError(f"strategy {name} is registered already: choose another name")
