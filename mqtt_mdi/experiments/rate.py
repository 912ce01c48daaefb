"""`experiment rate`: the admitted rate against the topology, at the thresholds of the bundle."""

from collections.abc import Sequence
from statistics import fmean

from mqtt_mdi.experiments import figures
from mqtt_mdi.experiments.compare import compare, no_static
from mqtt_mdi.experiments.contestants import MDI_EXIT, present
from mqtt_mdi.experiments.findings import Findings
from mqtt_mdi.experiments.lab import Lab
from mqtt_mdi.experiments.rows import Rate
from mqtt_mdi.experiments.settings import Settings
from mqtt_mdi.experiments.systems import TOPOLOGIES
from mqtt_mdi.experiments.tables import Cells, percent, rounded, spread


def experiment(settings: Settings) -> Findings:
    """Every contestant on every topology."""
    with Lab(settings) as lab:
        systems = TOPOLOGIES[::2] if settings.quick else TOPOLOGIES
        rows = rounded(row for row, _ in compare(lab, systems))
    return Findings(
        csv={"rate": rows},
        tables={"rate": rates(rows), "rate-latency": latencies(rows)},
        figures={"rate": figures.rates(rows)},
        remarks=[reason] if (reason := no_static()) else [],
    )


def rates(rows: Sequence[Rate]) -> Cells:
    """Frames a second and share of the bound, contestants by systems; the bounds themselves at the end."""
    systems = list(dict.fromkeys(row.system for row in rows))
    cells = [
        {"frames/s (of λ*)": name} | {system: _rate(rows, name, system) for system in systems}
        for name in present(row.contestant for row in rows)
    ]
    at_source = f"{MDI_EXIT.name} of λ* with stage 1 at the source"
    shares = {
        system: [row.rate / row.bound_at_source for row in of(rows, MDI_EXIT.name, system)]
        for system in systems
    }
    return [
        *cells,
        {"frames/s (of λ*)": "λ*"}
        | {s: f"{fmean(row.bound for row in rows if row.system == s):.1f}" for s in systems},
        {"frames/s (of λ*)": "λ* with stage 1 at the source"}
        | {s: f"{fmean(row.bound_at_source for row in rows if row.system == s):.1f}" for s in systems},
        {"frames/s (of λ*)": at_source} | {system: percent(shares[system]) for system in systems},
    ]


def latencies(rows: Sequence[Rate]) -> Cells:
    """Accuracy, median and 95th percentile of the latency at full load, contestants by systems."""
    systems = list(dict.fromkeys(row.system for row in rows))
    head = "accuracy, latency p50 / p95"
    return [
        {head: name} | {system: _latency(of(rows, name, system)) for system in systems}
        for name in present(row.contestant for row in rows)
    ]


def of(rows: Sequence[Rate], contestant: str, system: str) -> list[Rate]:
    """A contestant's rows in a system."""
    return [row for row in rows if (row.contestant, row.system) == (contestant, system)]


def _rate(rows: Sequence[Rate], contestant: str, system: str) -> str:
    own = of(rows, contestant, system)
    return f"{spread(row.rate for row in own)} ({percent(row.efficiency for row in own)})" if own else "-"


def _latency(own: Sequence[Rate]) -> str:
    if not own:
        return "-"
    times = [(row.latency_p50_ms, row.latency_p95_ms) for row in own]
    p50, p95 = (fmean(each or 0.0 for each in some) / 1000 for some in zip(*times, strict=True))
    return f"{percent((row.accuracy for row in own), 2)}, " + (f"{p50:.2f} / {p95:.2f} s" if p50 else "-")
