"""MDI without early exits: every frame goes through the whole network."""

from dataclasses import replace

from mqtt_mdi.core.strategies import mdi_exit

STRATEGY = replace(
    mdi_exit.STRATEGY,
    about="MDI without early exits: MDI-Exit whose frames leave at the last",
    early_exits=False,
)
