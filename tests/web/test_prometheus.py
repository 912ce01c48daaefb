"""A real Prometheus scrapes a running pipeline; every expression we ship is asked of it."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest
import yaml
from live import Broker, Pipeline, Process, mqtt_mdi, until
from pages import STAGES, rows, send_sample, where
from prometheus import PATIENCE_S, PROMETHEUS, Prometheus, running_prometheus

from mqtt_mdi.web.metrics import METRICS

ROOT = Path(__file__).parents[2]
TOKEN = "known to both sides"
FRAMES = 60
WITHOUT_DATA = {"mdi_device_memory_limit_bytes"}
"""Metrics that say nothing of a pipeline like this one."""


@pytest.fixture(scope="module")
def watched(
    mosquitto: Broker, names: Iterator[str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Pipeline, dict[str, Process], Prometheus]]:
    folder = tmp_path_factory.mktemp("prometheus")
    with Pipeline(mosquitto, next(names), folder) as pipeline:
        pipeline.env |= {"MDI_HTTP": "0.0.0.0:0", "MDI_HTTP_TOKEN": TOKEN}
        processes = {"coordinator": pipeline.coordinator("--watch-broker"), "source-1": pipeline.source()}
        processes |= {device: pipeline.device(device, stages) for device, stages in STAGES.items()}
        pipeline.ready("source-1")
        for device, stages in STAGES.items():
            pipeline.ready(device, *map(int, stages.split(",")))
        target = f"127.0.0.1:{where(processes['coordinator']).port}"
        with running_prometheus(folder, target, TOKEN) as prometheus:
            prometheus.wait_for("up", 1)
            send_sample(pipeline, "cam1", FRAMES)
            prometheus.wait_for("mdi_frames_graded_total", FRAMES)
            yield pipeline, processes, prometheus


def dashboard() -> tuple[list[str], list[str]]:
    """What the panels and the annotations ask, as Grafana would."""
    board = json.loads((ROOT / "deploy" / "grafana" / "dashboards" / "mqtt-mdi.json").read_text())
    panels = [target["expr"] for panel in board["panels"] for target in panel.get("targets", ())]
    annotations = [entry["expr"] for entry in board["annotations"]["list"]]
    return [_filled(asked) for asked in panels], [_filled(asked) for asked in annotations]


def _filled(expression: str) -> str:
    for name, value in (("$__rate_interval", "1m"), ("$instance", "INSTANCE"), ("$device", ".*")):
        expression = expression.replace(name, value)
    return expression


def alerts() -> dict[str, str]:
    groups: list[Any] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def documented() -> list[str]:
    """Each line of the documents' PromQL."""
    fences = [
        fence
        for page in (ROOT / "docs").rglob("*.md")
        for fence in re.findall(r"^```promql\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    ]
    return [line for fence in fences for line in fence.splitlines()]


def test_the_target_is_up_and_counts_as_the_database_does(
    watched: tuple[Pipeline, dict[str, Process], Prometheus],
) -> None:
    pipeline, _, prometheus = watched

    def state() -> tuple[str, str]:
        [target] = prometheus.ask("targets?state=active")["activeTargets"]
        return target["health"], target["lastError"]

    until(lambda: state() == ("up", ""), lambda: str(state()), PATIENCE_S)
    [(answered,)] = rows(pipeline.database, "SELECT count(*) FROM results WHERE status = 'ok'")
    for counter in ("mdi_frames_answered_total", "sum(mdi_exit_frames_total)"):
        prometheus.wait_for(counter, answered)
    prometheus.wait_for("mdi_frame_latency_seconds_count", answered)


def test_every_metric_is_there(watched: tuple[Pipeline, dict[str, Process], Prometheus]) -> None:
    _, _, prometheus = watched
    for metric in METRICS:
        name = metric.name + ("_bucket" if metric.kind == "histogram" else "")
        if name in WITHOUT_DATA:
            assert not prometheus.query(name)
        else:
            prometheus.wait_for(name)


def test_the_dashboard_and_the_documents_show_data(
    watched: tuple[Pipeline, dict[str, Process], Prometheus],
) -> None:
    _, _, prometheus = watched
    [target] = prometheus.ask("targets?state=active")["activeTargets"]
    instance = target["labels"]["instance"]
    panels, annotations = dashboard()
    asked = [expression.replace("INSTANCE", instance) for expression in panels] + documented()
    assert len(asked) > 40
    for expression in asked:
        prometheus.wait_for(expression)
    for expression in annotations:
        prometheus.query(expression)


def test_alerts_ask_of_what_is_there(watched: tuple[Pipeline, dict[str, Process], Prometheus]) -> None:
    _, _, prometheus = watched
    for expression in alerts().values():
        prometheus.query(expression)
        for metric in re.findall(r"\bmdi_\w+|\bup\b", expression):
            prometheus.wait_for(metric)
    with pytest.raises(HTTPError):
        prometheus.query("rate(no sense")


def test_a_killed_device_is_an_alert(watched: tuple[Pipeline, dict[str, Process], Prometheus]) -> None:
    _, processes, prometheus = watched
    pending = 'ALERTS{alertname="MdiDeviceOffline", device="device-3"}'
    assert not prometheus.query(pending)
    processes["device-3"].kill()
    prometheus.wait_for(pending)
    rules = [rule for group in prometheus.ask("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"] for rule in rules} == alerts().keys()
    assert not [rule for rule in rules if rule["health"] == "err"]


def test_a_page_with_tls_is_scraped_too(
    mosquitto: Broker, new_pipeline: Callable[[Broker], Pipeline], tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    made = mqtt_mdi("certs", "--out", str(secrets), "--host", "broker")
    assert made.returncode == 0, made.stderr
    pipeline = new_pipeline(mosquitto)
    pipeline.env["MDI_HTTP_TOKEN"] = TOKEN
    files = ("--http-cert", str(secrets / "page.crt"), "--http-key", str(secrets / "page.key"))
    target = f"127.0.0.1:{where(pipeline.coordinator('--http', '0.0.0.0:0', *files)).port}"
    with running_prometheus(tmp_path, target, TOKEN, secrets / "ca.crt") as prometheus:
        prometheus.wait_for("mdi_broker_connected", 1)
