"""`experiment uneven`: five devices of uneven speed and memory, and where their time goes."""

from collections.abc import Sequence
from statistics import fmean

from mqtt_mdi.experiments import figures
from mqtt_mdi.experiments.compare import compare, no_static
from mqtt_mdi.experiments.contestants import MDI_EXIT, MDI_EXIT_SHIPPED, PLANNER, present
from mqtt_mdi.experiments.findings import Findings
from mqtt_mdi.experiments.lab import Lab
from mqtt_mdi.experiments.rate import of
from mqtt_mdi.experiments.rows import Busy, Rate
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.systems import UNEVEN
from mqtt_mdi.experiments.tables import Cells, percent, rounded, spread

WATCHED = (PLANNER.name, MDI_EXIT_SHIPPED.name, MDI_EXIT.name)


def experiment(settings: Settings) -> Findings:
    """Every contestant on the uneven five."""
    with Lab(settings) as lab:
        judged = compare(lab, (UNEVEN,))
    rows = rounded(row for row, _ in judged)
    busy = rounded(
        Busy(row.contestant, row.seed, device, stage, share)
        for row, run in judged
        if run is not None
        for device, shares in run.busy.items()
        for stage, share in enumerate(shares, 1)
    )
    return Findings(
        csv={"uneven": rows, "uneven-busy": busy},
        tables={"uneven": rates(rows)},
        figures={
            "uneven": figures.rates(rows),
            "uneven-busy": figures.busy([each for each in busy if each.contestant in WATCHED]),
        },
        remarks=[reason] if (reason := no_static()) else [],
    )


def rates(rows: Sequence[Rate]) -> Cells:
    """What each contestant reaches, and how many times as much the planner does."""
    best = fmean(row.rate for row in of(rows, PLANNER.name, UNEVEN.name))
    cells = []
    for name in present(row.contestant for row in rows):
        own = of(rows, name, UNEVEN.name)
        rate = fmean(row.rate for row in own)
        p50 = fmean(row.latency_p50_ms or 0.0 for row in own) / 1000
        p95 = fmean(row.latency_p95_ms or 0.0 for row in own) / 1000
        cells.append(
            {
                UNEVEN.name: name,
                "frames/s": spread(row.rate for row in own),
                "of λ*": percent(row.efficiency for row in own),
                "of λ* with stage 1 at the source": percent(row.rate / row.bound_at_source for row in own),
                "accuracy": percent((row.accuracy for row in own), 2),
                "latency p50 / p95": f"{p50:.2f} / {p95:.2f} s" if p50 else "-",
                "planner's is": f"{best / rate:.2f} times" if rate else "-",
            }
        )
    return cells
