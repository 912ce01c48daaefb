"""`mqtt-mdi simulate` from a file to figures."""

import csv
import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from mqtt_mdi.cli.main import cli
from mqtt_mdi.errors import ConfigError

ROOT = Path(__file__).parents[2]
SCENARIO = ROOT / "benchmarks" / "scenarios" / "uneven-5.yaml"


def test_table_csv_and_json_agree(tmp_path: Path) -> None:
    short = tmp_path / "short.yaml"
    short.write_text(yaml.safe_dump({**yaml.safe_load(SCENARIO.read_text()), "frames": 500}))
    table = tmp_path / "answers.csv"
    ran = CliRunner().invoke(cli, ["simulate", str(short), "--csv", str(table), "--json", "--seed", "3"])
    assert ran.exit_code == 0, ran.output
    figures = json.loads(ran.stdout.strip().splitlines()[-1])
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert figures["answered"] == len(rows) == 500
    assert sum(figures["exits"]) == 500
    assert "uneven five" in ran.stdout


def test_the_schema_is_kept_and_takes_the_examples() -> None:
    ran = CliRunner().invoke(cli, ["simulate", "--schema"])
    kept = json.loads((ROOT / "schemas" / "scenario.schema.json").read_text())
    assert json.loads(ran.stdout) == kept, "run: mqtt-mdi simulate --schema > schemas/scenario.schema.json"
    for path in (ROOT / "benchmarks" / "scenarios").glob("*.yaml"):
        jsonschema.validate(yaml.safe_load(path.read_text()), kept)


def test_a_csv_that_cannot_be_written(tmp_path: Path) -> None:
    short = tmp_path / "short.yaml"
    short.write_text(yaml.safe_dump({**yaml.safe_load(SCENARIO.read_text()), "frames": 10}))
    with pytest.raises(ConfigError, match="cannot write --csv"):
        cli.main(["simulate", str(short), "--csv", str(tmp_path / "none" / "a.csv")], standalone_mode=False)
