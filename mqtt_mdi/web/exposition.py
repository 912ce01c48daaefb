"""`/metrics`: the table of metrics in the formats that Prometheus reads, made when it asks."""

from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from mqtt_mdi.core.ledger import LATENCY_BOUNDS_S
from mqtt_mdi.runtime.coordinator import CoordinatorShell
from mqtt_mdi.web.feed import ask
from mqtt_mdi.web.metrics import METRICS, Metric
from mqtt_mdi.web.sight import Sight, observe

_PROCESS = ProcessCollector(registry=None)
_FAMILIES: dict[str, type[CounterMetricFamily | GaugeMetricFamily]] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
}


class SightCollector(Collector):
    """Puts one look at the coordinator, and what its process takes, into the library's terms."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight

    def collect(self) -> Iterator[Family]:
        """Each metric with its values."""
        for metric in METRICS:
            yield _family(metric, self._sight)
        yield from _PROCESS.collect()


def metrics_of(shell: CoordinatorShell) -> Callable[[Request], Awaitable[Response]]:
    """The answer to a scrape; nothing is counted or kept for it meanwhile."""

    async def answer(request: Request) -> Response:
        sight: Sight = await ask(shell, lambda settle: settle(observe(shell)))
        encode, kind = choose_encoder(request.headers.get("accept", ""))
        body = await run_in_threadpool(encode, SightCollector(sight))
        return Response(body, headers={"Content-Type": kind})

    return answer


def _family(metric: Metric, sight: Sight) -> Family:
    if metric.kind == "histogram":
        bounds = (*map(str, LATENCY_BOUNDS_S), "+Inf")
        counts = (count for _labels, count in metric.read(sight))
        histogram = HistogramMetricFamily(metric.name, metric.about)
        histogram.add_metric((), list(zip(bounds, counts, strict=True)), sight.latency_sum_s)
        return histogram
    family = _FAMILIES[metric.kind](metric.name, metric.about, labels=metric.labels)
    for labels, value in metric.read(sight):
        family.add_metric(labels, value)
    return family
