"""`mqtt-mdi simulate` beside the limit that no policy beats."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from mqtt_mdi.cli.main import cli

ROOT = Path(__file__).parents[2]
WITHOUT_SCIPY = "import sys; sys.modules['scipy'] = None; from mqtt_mdi.cli.main import cli; cli()"


@pytest.fixture
def short(tmp_path: Path) -> Path:
    given = yaml.safe_load((ROOT / "benchmarks" / "scenarios" / "mesh-3.yaml").read_text())
    path = tmp_path / "short.yaml"
    path.write_text(yaml.safe_dump({**given, "frames": 300}))
    return path


def test_the_bound_and_the_share_of_it(short: Path) -> None:
    ran = CliRunner().invoke(cli, ["simulate", str(short), "--json"])
    figures = json.loads(ran.stdout.strip().splitlines()[-1])
    assert 0.3 < figures["efficiency"] <= 1
    assert figures["efficiency"] == pytest.approx(figures["throughput"] / figures["fluid_bound"])
    assert "fluid bound" in ran.stdout
    assert "% of the bound" in ran.stdout


def test_nothing_answered_has_no_share(short: Path) -> None:
    short.write_text(yaml.safe_dump({**yaml.safe_load(short.read_text()), "limit_s": 0.0001}))
    ran = CliRunner().invoke(cli, ["simulate", str(short), "--json"])
    assert "fluid_bound" not in json.loads(ran.stdout.strip().splitlines()[-1])


def test_without_scipy_all_but_the_bound(short: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY, "simulate", str(short), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(ran.stdout.strip().splitlines()[-1])
    assert figures["answered"] == 300
    assert "efficiency" not in figures
    assert "fluid bound" not in ran.stdout
    assert "pip install 'mqtt-mdi[plan]'" in ran.stderr
