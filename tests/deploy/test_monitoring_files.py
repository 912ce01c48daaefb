"""The files for Prometheus, Grafana and Compose: accepted by their own programs, and of one mind."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
COMPOSED = ("docker-compose.yml", "docker-compose.secure.yml")


def program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on PATH: apt-get install {package}")
    return found


def read(path: Path) -> Any:  # noqa: ANN401 -- YAML
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize(
    "check",
    [
        ("check", "config", "--syntax-only", "prometheus.yml"),
        ("check", "config", "--syntax-only", "prometheus.secure.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts.test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_accepts(check: tuple[str, ...]) -> None:
    done = subprocess.run(
        [program("promtool", "prometheus"), *check],
        cwd=PROMETHEUS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_and_documented() -> None:
    alerts = [rule["alert"] for group in read(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]
    tried = (PROMETHEUS / "alerts.test.yml").read_text()
    howto = (ROOT / "docs" / "howto" / "metrics.md").read_text()
    assert not [alert for alert in alerts if f'alertname="{alert}"' not in tried]
    assert not [alert for alert in alerts if f"| `{alert}` |" not in howto]


BEYOND_THE_SCHEMA = {"definition", "titleFormat"}
"""What Grafana itself writes for Prometheus and its schema leaves open."""


def test_the_dashboard_is_of_grafanas_schema() -> None:
    register_default_plugins()
    file = GRAFANA / "dashboards" / "mqtt-mdi.json"
    ours = json.loads(file.read_text(), object_pairs_hook=_known)
    theirs = JSONEncoder(sort_keys=True).encode(Dashboard.from_json(json.loads(file.read_text())))
    assert list(_lost(ours, json.loads(theirs))) == []


def _known(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in pairs if name not in BEYOND_THE_SCHEMA}


def _lost(ours: Any, theirs: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401 -- JSON
    """Where a dashboard has what the schema does not know or has otherwise."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name, value in ours.items():
            yield from _lost(value, theirs.get(name), f"{where}.{name}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for place, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _lost(*pair, f"{where}[{place}]")
    elif ours != theirs:
        yield f"{where}: {ours!r} became {theirs!r}"


def test_the_dashboard_is_whole() -> None:
    board = json.loads((GRAFANA / "dashboards" / "mqtt-mdi.json").read_text())
    assert board["schemaVersion"] >= 36
    assert board["uid"]
    panels = board["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = {}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells[panel["title"]] = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
    assert len(cells) == len(panels), "two panels have one title"
    assert not [pair for pair in combinations(cells, 2) if cells[pair[0]] & cells[pair[1]]]
    for panel in panels:
        if panel["type"] == "row":
            continue
        assert panel["description"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references))
        sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
        assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in sources)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "instance", "device"]
    [source] = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert source["uid"] == variables["datasource"]["current"]["value"]


@pytest.mark.parametrize("name", COMPOSED)
def test_the_profile_mounts_what_is_there(name: str) -> None:
    services = read(ROOT / name)["services"]
    own = read(ROOT / COMPOSED[0])["services"]
    for role in ("prometheus", "grafana"):
        if name != COMPOSED[0]:
            assert services[role]["extends"] == {"file": COMPOSED[0], "service": role}
        service = own[role]
        assert service["profiles"] == ["metrics"]
        mounts = dict(mount.split(":")[:2] for mount in service["volumes"])
        assert all((ROOT / path).is_dir() for path in mounts if path.startswith("."))
        volumes = [path for path in mounts if not path.startswith(".")]
        assert not set(volumes) - read(ROOT / name)["volumes"].keys()
    # each side is told of the other
    told = services["prometheus"]["environment"]
    scraped = read(PROMETHEUS / told["MDI_PROMETHEUS_CONFIG"])["scrape_configs"][0]
    host, _, port = scraped["static_configs"][0]["targets"][0].partition(":")
    assert f"--http 0.0.0.0:{port}" in services[host]["command"]
    assert (
        services[host]["environment"]["MDI_HTTP_TOKEN"] == own["prometheus"]["environment"]["MDI_HTTP_TOKEN"]
    )
    assert f">{scraped['authorization']['credentials_file']};" in own["prometheus"]["command"][0]
    [source] = read(GRAFANA / "provisioning" / "datasources" / "prometheus.yml")["datasources"]
    assert source["url"] == f"http://prometheus:{own['prometheus']['ports'][0].rpartition(':')[2]}"
    [provider] = read(GRAFANA / "provisioning" / "dashboards" / "mqtt-mdi.yml")["providers"]
    assert f"./deploy/grafana/dashboards:{provider['options']['path']}:ro" in own["grafana"]["volumes"]


@pytest.mark.parametrize("token", ["", "a token of 'some' $length"])
def test_prometheus_is_started_with_the_token_alone(token: str, tmp_path: Path) -> None:
    """Compose's own command, with a program in Prometheus' place that prints what it was given."""
    command = read(ROOT / COMPOSED[0])["services"]["prometheus"]["command"][0].replace("$$", "$")
    spy = tmp_path / "prometheus"
    spy.write_text(
        f'#!/bin/sh\ncat {tmp_path}/token; echo " $1 $MDI_HTTP_TOKEN"; stat -c %a {tmp_path}/token\n'
    )
    spy.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", "-c", command.replace("/run/mdi/", f"{tmp_path}/")],
        env={
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "MDI_HTTP_TOKEN": token,
            "MDI_PROMETHEUS_CONFIG": "prometheus.yml",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if token:
        assert done.stdout == f"{token} --config.file=/etc/mdi/prometheus.yml \n600\n"
    else:
        assert (done.returncode, "set MDI_HTTP_TOKEN" in done.stdout) == (1, True)


@pytest.mark.parametrize("name", COMPOSED)
def test_compose_accepts(name: str, tmp_path: Path) -> None:
    program("docker-compose", "docker-compose")
    for user in ("coordinator", "source-1", "device-1", "device-2", "device-3", "cam1"):
        (tmp_path / f"{user}.env").write_text(f"MDI_BROKER=mqtts://{user}:secret@broker:8883\n")
    done = subprocess.run(
        ["docker-compose", "-f", name, "--profile", "metrics", "config"],
        cwd=ROOT,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "MDI_SECRETS": str(tmp_path),
            "MDI_HTTP_TOKEN": "0123456789abcdef",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert {"prometheus", "grafana", "coordinator"} <= services.keys()
    for role in ("prometheus", "coordinator"):
        assert services[role]["environment"]["MDI_HTTP_TOKEN"] == "0123456789abcdef"
