"""A network that learns from another one's answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mqtt_mdi.bundle.manifest import read_manifest
from mqtt_mdi.datasets.labelled import Dataset, Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.export.rebuild import network_of
from mqtt_mdi.models.registry import build
from mqtt_mdi.training.recipe import Recipe
from mqtt_mdi.training.run import train_bundle
from mqtt_mdi.training.teacher import Taught, Teacher

ONE, OTHER = Normalisation((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)), Normalisation((0.5, 0.1, 0.7), (0.5, 0.5, 0.1))
RECIPE = Recipe(epochs=4, batch=16, learning_rate=0.05, method="taught", shift=0, seed=3)


class Redness(nn.Module):
    """Tells reddish pictures, given as 0..1, from the rest; its early exit errs."""

    def forward(self, x: Tensor) -> list[Tensor]:
        red = 20 * (x[:, 0].mean((1, 2)) - 0.5)
        return [torch.stack([red, -red], dim=1), torch.stack([-red, red], dim=1)]


def teacher() -> Teacher:
    return Teacher("redness", Redness(), Normalisation((0, 0, 0), (1, 1, 1)))


def pictures(count: int, seed: int) -> Labelled:
    """Pictures that are reddish, class 1, and others in turn."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 100, (count, 3, 8, 8), np.uint8)
    found[::2, 0] += 150
    return Labelled(found, (np.arange(count) % 2 == 0).astype(np.int64))


@given(st.lists(st.integers(0, 255), min_size=3, max_size=3))
@settings(max_examples=20, deadline=None)
def test_one_normalisation_in_place_of_another(pixel: list[int]) -> None:
    picture = torch.tensor(pixel, dtype=torch.uint8).view(1, 3, 1, 1)
    torch.testing.assert_close(OTHER.instead_of(ONE, ONE(picture)), OTHER(picture), atol=1e-5, rtol=1e-5)


def test_the_teacher_sees_what_the_student_sees_as_it_was_taught_to() -> None:
    shown = torch.from_numpy(pictures(4, 1).pictures)
    student = build("resnet18", 2, 3, 0.125)
    taught = Taught(student, teacher(), ONE)
    *exits, said = taught.train()(ONE(shown))
    assert len(exits) == 4
    torch.testing.assert_close(said, Redness()(shown / 255)[-1], atol=1e-4, rtol=1e-4)
    assert not said.requires_grad
    assert len(taught.eval()(ONE(shown))) == 4
    assert [name.partition(".")[0] for name in taught.state_dict()] == ["student"] * len(student.state_dict())


def test_a_teacher_that_remembers_looks_at_a_batch_once() -> None:
    looks: list[Tensor] = []
    network = Redness()
    network.register_forward_hook(lambda _module, given, _said: looks.append(given[0]))
    remembers = Teacher("redness", network, ONE, remembers=True)
    first, second = (ONE(torch.from_numpy(pictures(4, seed).pictures)) for seed in (1, 2))
    said = [remembers(shown, ONE) for shown in (first, second, first, first.clone())]
    assert len(looks) == 2
    assert torch.equal(said[0], said[2])
    assert torch.equal(said[0], said[3])
    assert torch.equal(said[0], Teacher("redness", network, ONE)(first, ONE))


def train(out: Path, recipe: Recipe, teacher: Teacher | None) -> None:
    learned, test = pictures(96, 1), pictures(40, 2)
    labels = np.where(np.arange(96) % 3 == 0, 1 - learned.labels, learned.labels)  # a third of them wrong
    train_bundle(
        Dataset(Labelled(learned.pictures, labels), test, ("grey", "red")),
        "colours",
        out,
        out / "checkpoint.pt",
        model="resnet18",
        width=0.125,
        recipe=recipe,
        held_out=16,
        max_accuracy_loss=0.1,
        sample=0,
        progress=lambda *_: None,
        teacher=teacher,
    )


def test_a_student_learns_from_its_teacher_what_wrong_labels_do_not_say(tmp_path: Path) -> None:
    train(tmp_path, RECIPE, teacher())
    manifest = read_manifest(tmp_path)
    assert manifest.trained.recipe["teacher"] == "redness"
    assert min(manifest.exit_accuracy) >= 0.95
    assert network_of(tmp_path, manifest).stages()  # the student's weights alone, under its own names
    other = teacher()
    other.name = "someone else"
    with pytest.raises(ConfigError, match=r"belongs to another run .* taught by redness"):
        train(tmp_path, RECIPE, other)


@pytest.mark.parametrize(("method", "needs"), [("taught", "needs a"), ("joint", "has no use for a")])
def test_method_and_teacher_go_together(tmp_path: Path, method: str, needs: str) -> None:
    with pytest.raises(ConfigError, match=f"--method {method} {needs} --teacher"):
        train(tmp_path, replace(RECIPE, method=method), teacher() if method == "joint" else None)
