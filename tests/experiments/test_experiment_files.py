"""Quick runs of every experiment: the files are there and are what they say."""

import sys
from pathlib import Path
from subprocess import run
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from PIL import Image

from mqtt_mdi.cli.experiment import EXPERIMENTS, experiment
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.experiments import rows, tables

SVG = "{http://www.w3.org/2000/svg}"
ROWS: dict[str, dict[str, type]] = {
    "rate": {"rate": rows.Rate},
    "accuracy": {"accuracy": rows.Accuracy, "accuracy-policies": rows.Chosen},
    "uneven": {"uneven": rows.Rate, "uneven-busy": rows.Busy},
    "scale": {"scale": rows.Cost},
}
"""What the rows of each experiment's files are."""


@pytest.mark.parametrize("name", ROWS)
def test_a_quick_run_writes_rows_tables_and_figures(name: str, tmp_path: Path) -> None:
    jobs = "2" if name == "uneven" else "1"
    result = CliRunner().invoke(experiment, [name, "--quick", "--jobs", jobs, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = {path.name for path in tmp_path.iterdir()}
    assert all(file in result.output.replace("\n", "") for file in written)
    for file, kind in ROWS[name].items():
        rows = tables.read_csv(tmp_path / f"{file}.csv", kind)
        assert rows
        assert tables.rounded(rows) == rows
    for svg in tmp_path.glob("*.svg"):
        root = ET.parse(svg).getroot()
        assert root.tag == f"{SVG}svg"
        assert [text for text in root.iter(f"{SVG}text") if text.text], "text is kept as text"
        assert "dc:date" not in svg.read_text()
        with Image.open(svg.with_suffix(".png")) as picture:
            assert min(picture.size) > 400
    assert len(list(tmp_path.glob("*.svg"))) == (2 if name == "uneven" else 1)
    assert all(path.read_text().startswith("| ") for path in tmp_path.glob("*.md"))


@pytest.mark.parametrize("missing", ["matplotlib", "scipy"])
def test_what_is_not_installed_is_named_with_what_to_install(missing: str, tmp_path: Path) -> None:
    script = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from mqtt_mdi.cli.experiment import experiment\n"
        f"experiment(['rate', '--out', {str(tmp_path)!r}], standalone_mode=False)"
    )
    done = run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "ConfigError: experiments need" in done.stderr
    assert "pip install 'mqtt-mdi[experiment]'" in done.stderr
    assert missing in done.stderr.splitlines()[-1]


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(tmp_path: Path) -> None:
    (file := tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write to --out .*/file/below"):
        experiment(["rate", "--out", str(file / "below")], standalone_mode=False)


def test_a_bundle_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        experiment(
            ["rate", "--bundle", str(tmp_path / "none"), "--out", str(tmp_path)], standalone_mode=False
        )


def test_every_experiment_is_explained() -> None:
    for name in EXPERIMENTS:
        result = CliRunner().invoke(experiment, [name, "--help"])
        assert result.exit_code == 0
        assert f"experiment-{name}" in "".join(result.output.split())
