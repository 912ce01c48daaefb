"""docs/experiments.md tells what the rows beside its figures tell."""

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from mqtt_mdi.experiments import accuracy, figures, rate, rows, scale, tables, uneven
from mqtt_mdi.experiments.contestants import DDI, MDI_EXIT, PLANNER
from mqtt_mdi.experiments.systems import TOPOLOGIES

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "experiments.md").read_text()
RATES = tables.read_csv(DOCS / "figures" / "rate.csv", rows.Rate)
UNEVEN = tables.read_csv(DOCS / "figures" / "uneven.csv", rows.Rate)
TABLES = {
    "rates": rate.rates(RATES),
    "latencies": rate.latencies(RATES),
    "uneven": uneven.rates(UNEVEN),
    "accuracies": accuracy.accuracies(
        tables.read_csv(DOCS / "figures" / "accuracy.csv", rows.Accuracy), TOPOLOGIES[-1].name
    ),
    "costs": scale.costs(tables.read_csv(DOCS / "figures" / "scale.csv", rows.Cost)),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_that_of_its_rows(name: str) -> None:
    assert tables.markdown(TABLES[name]) in PAGE


def test_every_figure_is_there_and_has_words_for_those_who_do_not_see_it() -> None:
    shown = re.findall(r"!\[([^\]]*)\]\((figures/[a-z-]+\.svg)\)", PAGE)
    assert {path for _, path in shown} == {f"figures/{path.name}" for path in DOCS.glob("figures/*.svg")}
    for words, path in shown:
        assert len(words) > 20
        assert ET.parse(DOCS / path).getroot().tag.endswith("svg")


def test_the_same_rows_make_the_same_figure(tmp_path: Path) -> None:
    first, _ = figures.save(figures.rates(RATES), tmp_path / "first")
    again, _ = figures.save(figures.rates(RATES), tmp_path / "again")
    assert first.read_bytes() == again.read_bytes()


def test_the_planner_is_near_the_bound_wherever_it_ran() -> None:
    efficiencies = [row.efficiency for row in [*RATES, *UNEVEN] if row.contestant == PLANNER.name]
    assert len(efficiencies) == 18
    assert min(efficiencies) > 0.95


def test_what_won_and_what_lost() -> None:
    def best(found: list[rows.Rate], contestant: str, system: str) -> float:
        return max(row.rate for row in rate.of(found, contestant, system))

    five = "uneven five"
    assert best(UNEVEN, PLANNER.name, five) > 5 * best(UNEVEN, MDI_EXIT.name, five)
    assert best(UNEVEN, PLANNER.name, five) > 10 * best(UNEVEN, DDI.name, five)
    assert best(RATES, DDI.name, "5-node mesh") > 0.97 * best(RATES, PLANNER.name, "5-node mesh")
    assert best(RATES, DDI.name, "3-node circular") < 0.75 * best(RATES, PLANNER.name, "3-node circular")
