from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation, normalisation
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.registry import build
from mqtt_mdi.training.loop import Progress, Watch, augment, erase, fit, learning_rate
from mqtt_mdi.training.methods import loss_of
from mqtt_mdi.training.recipe import Recipe

RECIPE = Recipe(epochs=3, batch=16, seed=4)


def striped(samples: int = 48) -> Labelled:
    """Pictures of vertical and horizontal stripes."""
    labels = np.arange(samples) % 2
    pictures = np.random.default_rng(1).integers(0, 60, (samples, 1, 12, 12), np.uint8)
    pictures[labels == 0, :, :, ::3] += 150
    pictures[labels == 1, :, ::3] += 150
    return Labelled(pictures, labels.astype(np.int64))


class CutShortError(Exception):
    pass


def silent(_epoch: int, _step: int, _steps: int, _loss: float) -> None:
    pass


def cut_short(epoch: int, step: int, _steps: int, _loss: float) -> None:
    if (epoch, step) == (2, 1):
        raise CutShortError


def run(
    checkpoint: Path,
    progress: Progress = silent,
    recipe: Recipe = RECIPE,
    samples: Labelled | None = None,
    start: int = RECIPE.seed,
    shown: list[torch.Tensor] | None = None,
    watch: Watch | None = None,
) -> nn.Module:
    torch.manual_seed(start)
    model = build("mobilenetv2", 2, 1, 0.125)
    if shown is not None:
        model.register_forward_pre_hook(lambda _model, given: shown.append(given[0].clone()))
    return fit(
        model,
        samples or striped(),
        Normalisation((0.3,), (0.3,)),
        recipe,
        loss=loss_of(recipe.method, (), 4),
        checkpoint=checkpoint,
        progress=progress,
        watch=watch,
    )


def test_a_run_cut_short_and_resumed_ends_with_the_same_weights(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole.pt").state_dict()
    with pytest.raises(CutShortError):
        run(tmp_path / "cut.pt", cut_short)
    steps: list[tuple[int, int]] = []
    resumed = run(tmp_path / "cut.pt", lambda epoch, step, _n, _l: steps.append((epoch, step))).state_dict()
    assert steps == [(2, 0), (2, 1), (2, 2)]
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_an_epoch_that_is_saved_was_watched(tmp_path: Path) -> None:
    """A run may be stopped between the two, and does not repeat what is saved."""
    seen: list[tuple[int, bool]] = []
    run(
        tmp_path / "c.pt",
        recipe=replace(RECIPE, epochs=1),
        watch=lambda epoch, _loss, _model: seen.append((epoch, (tmp_path / "c.pt").exists())),
    )
    assert seen == [(1, False)]


def test_views_come_again_in_turn(tmp_path: Path) -> None:
    shown: list[torch.Tensor] = []
    run(tmp_path / "c.pt", recipe=replace(RECIPE, epochs=4, erase=4, views=2), shown=shown)
    epochs = torch.stack(shown).view(4, -1)
    assert torch.equal(epochs[:2], epochs[2:])
    assert not torch.equal(epochs[0], epochs[1])
    always_new: list[torch.Tensor] = []
    run(tmp_path / "new.pt", recipe=replace(RECIPE, epochs=4, erase=4), shown=always_new)
    assert len(torch.stack(always_new).view(4, -1).unique(dim=0)) == 4


def test_a_finished_run_is_not_repeated(tmp_path: Path) -> None:
    first = run(tmp_path / "c.pt").state_dict()
    steps: list[int] = []
    again = run(tmp_path / "c.pt", lambda _e, step, _n, _l: steps.append(step)).state_dict()
    assert steps == []
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_the_loss_falls(tmp_path: Path) -> None:
    losses: list[float] = []
    recipe = Recipe(epochs=8, batch=16, seed=4)
    run(tmp_path / "c.pt", lambda _e, _s, _n, loss: losses.append(loss), recipe)
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])


def test_the_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "c.pt", recipe=Recipe(epochs=1, batch=16))
    with pytest.raises(
        ConfigError, match=r"c\.pt belongs to another run \(epochs was 1, is 3; seed was 1, is 4\); .*--out"
    ):
        run(tmp_path / "c.pt")


def test_other_pictures_or_weights_are_another_run(tmp_path: Path) -> None:
    """Pictures once learned from must not be held out later on, to choose thresholds with."""
    run(tmp_path / "c.pt", recipe=RECIPE)
    everything = striped()
    fewer = Labelled(everything.pictures[8:], everything.labels[8:])
    with pytest.raises(ConfigError, match="learned from other pictures"):
        run(tmp_path / "c.pt", samples=fewer)
    with pytest.raises(ConfigError, match="began with other weights"):
        run(tmp_path / "c.pt", start=RECIPE.seed + 1)
    # However they lie in memory, they are the same pictures.
    turned = np.ascontiguousarray(everything.pictures.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    run(tmp_path / "c.pt", samples=Labelled(turned, everything.labels))


def test_a_loss_that_grows_without_end_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"loss became (nan|inf) in epoch 1: choose a --learning-rate below"
    ):
        run(tmp_path / "c.pt", recipe=replace(RECIPE, learning_rate=1e30))
    assert not (tmp_path / "c.pt").exists()


def test_a_batch_that_memory_does_not_hold(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="out of memory on cpu with batches of 16: choose a smaller --batch"
    ):
        run(tmp_path / "c.pt", lambda *_: torch.empty(2**50, dtype=torch.uint8).fill_(1) and None)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CutShortError):
        run(tmp_path / "c.pt", cut_short)
    kept = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.partial").symlink_to("/dev/full")
    with pytest.raises(ConfigError, match=r"cannot write into .*: No space left on device; make room, and"):
        run(tmp_path / "c.pt")
    assert (tmp_path / "c.pt").read_bytes() == kept


def test_a_checkpoint_that_cannot_be_written_for_another_reason(tmp_path: Path) -> None:
    (tmp_path / "c.partial").mkdir()
    with pytest.raises(ConfigError, match=r"cannot write into .*: Is a directory; make it writable, and"):
        run(tmp_path / "c.pt", recipe=replace(RECIPE, epochs=1))


@pytest.mark.parametrize("kept", [0, 100, 20_000])
def test_a_damaged_checkpoint_is_refused(kept: int, tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    run(path, recipe=Recipe(epochs=1, batch=16))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ConfigError, match=r"cannot resume from .*delete it to start afresh"):
        run(path)


def test_fewer_samples_than_a_batch(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="48 samples do not fill a batch of 64"):
        run(tmp_path / "c.pt", recipe=Recipe(batch=64))


def test_augmentation_shifts_and_mirrors_whole_pictures() -> None:
    picture = torch.arange(1, 26, dtype=torch.uint8).view(1, 1, 5, 5)
    out = augment(picture.expand(200, 1, 5, 5), torch.Generator().manual_seed(1), pad=1)
    assert out.shape == (200, 1, 5, 5)
    padded = nn.functional.pad(picture, (1, 1, 1, 1))
    allowed = {
        tuple(crop.flatten().tolist())
        for y in range(3)
        for x in range(3)
        for crop in (padded[..., y : y + 5, x : x + 5], padded[..., y : y + 5, x : x + 5].flip(3))
    }
    assert {tuple(one.flatten().tolist()) for one in out} == allowed
    out = augment(picture.expand(200, 1, 5, 5), torch.Generator().manual_seed(1), pad=0, mirror=False)
    assert (out == picture).all()


def test_normalisation_is_measured_for_each_channel() -> None:
    pictures = np.stack([np.tile([0, 102], (4, 2)), np.tile([0, 255], (4, 2))])[None].astype(np.uint8)
    assert normalisation(pictures) == Normalisation((0.2, 0.5), (0.2, 0.5))
    with pytest.raises(ConfigError, match="show nothing"):
        normalisation(pictures[:, :, :, ::2])


def test_the_normalisation_of_many_pictures_is_exact() -> None:
    """Channels that lie beside each other, as decoded pictures have them, are summed one by one."""
    pictures = np.full((20_000, 32, 32, 3), 255, np.uint8)
    pictures[::2] = 191
    measured = normalisation(pictures.transpose(0, 3, 1, 2))
    assert measured == Normalisation((round(223 / 255, 4),) * 3, (round(32 / 255, 4),) * 3)


def test_the_learning_rate_warms_up_and_comes_down() -> None:
    rates = [learning_rate(RECIPE, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(RECIPE.learning_rate / 10)
    assert max(rates) == pytest.approx(RECIPE.learning_rate)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001 * RECIPE.learning_rate


def test_a_square_of_each_picture_is_erased_at_a_place_of_its_own() -> None:
    pictures = torch.ones(64, 3, 12, 10)
    hidden = erase(pictures, torch.Generator().manual_seed(1), 4) == 0
    assert (hidden == hidden[:, :1]).all(), "the same place in every channel"
    whole = hidden[:, 0].sum((1, 2)) == 16
    assert 10 < whole.sum() < 64, "some squares lie partly outside"
    lines, columns = hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)
    assert (hidden[:, 0].sum((1, 2)) == lines * columns).all(), "each is one rectangle"
    assert len({tuple(one.flatten().tolist()) for one in hidden[:, 0]}) > 30


def test_a_run_with_erasing_differs_and_resumes_alike(tmp_path: Path) -> None:
    recipe = Recipe(epochs=3, batch=16, seed=4, erase=5)
    whole = run(tmp_path / "whole.pt", recipe=recipe).state_dict()
    plain = run(tmp_path / "plain.pt").state_dict()
    assert any(not torch.equal(value, plain[name]) for name, value in whole.items())
    with pytest.raises(CutShortError):
        run(tmp_path / "cut.pt", cut_short, recipe)
    resumed = run(tmp_path / "cut.pt", recipe=recipe).state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
