import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.bundle.trace import read_trace
from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import BundleError, ConfigError
from mqtt_mdi.export.rebuild import network_of
from mqtt_mdi.models.registry import build
from mqtt_mdi.training.bottleneck import Bottlenecked, bottleneck, imitation
from mqtt_mdi.training.loop import fit
from mqtt_mdi.training.recipe import Recipe

SHIPPED = read_manifest(SHIPPED_BUNDLE)
SAMPLE = read_sample(SHIPPED_BUNDLE)
NORMALISE = Normalisation(SHIPPED.input.mean, SHIPPED.input.std)
PICTURES = Labelled(SAMPLE.pictures[:600, None].copy(), SAMPLE.labels[:600].astype(np.int64))


@given(
    channels=st.integers(1, 24) | st.sampled_from([64, 128, 256, 512]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    ratio=st.floats(4, 64),
)
@settings(max_examples=30, deadline=None)
def test_a_code_is_as_short_as_promised_and_rebuilds_the_shape(
    channels: int, height: int, width: int, ratio: float
) -> None:
    shape = (channels, height, width)
    try:
        encoder, decoder = bottleneck(shape, ratio)
    except ConfigError:
        assert 4 * channels < ratio  # a channel of a quarter of the places or more would fit
        return
    code = encoder.eval()(torch.randn(2, *shape))
    assert code[0].numel() * ratio <= 4 * channels * height * width + 1e-6
    assert decoder.eval()(code).shape == (2, *shape)


def test_activations_that_no_bottleneck_fits() -> None:
    with pytest.raises(ConfigError, match=r"leaves nothing of .* \(1, 8, 8\); choose at most 16"):
        bottleneck((1, 8, 8), 17)
    with pytest.raises(ConfigError, match="no channels, height and width"):
        bottleneck((8,), 16)
    with pytest.raises(ConfigError, match=r"after stages \[2, 4\]: the stages that send are 1 to 3"):
        Bottlenecked(network_of(SHIPPED_BUNDLE, SHIPPED), SHIPPED.input.shape, 16, cuts=(4, 2))
    with pytest.raises(ConfigError, match="one stage"):
        Bottlenecked(build("mobilenetv2-static", 10, 1, 0.25), (1, 28, 28), 16)


def test_bottlenecks_learn_and_the_network_stays_as_it_is(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = Bottlenecked(network_of(SHIPPED_BUNDLE, SHIPPED), SHIPPED.input.shape, 16)
    before = copy.deepcopy(model.network.state_dict())
    losses: list[float] = []
    fitted = fit(
        model,
        PICTURES,
        NORMALISE,
        Recipe(epochs=1, batch=30, learning_rate=0.1, average_decay=0.8),
        loss=imitation,
        checkpoint=tmp_path / "checkpoint.pt",
        progress=lambda _epoch, _step, _steps, loss: losses.append(loss),
    )
    assert isinstance(fitted, Bottlenecked)
    assert np.mean(losses[-5:]) < 0.75 * losses[0]
    for name, value in fitted.network.state_dict().items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        logits = fitted(NORMALISE(torch.from_numpy(PICTURES.pictures[:4])))
        plain = fitted.network(NORMALISE(torch.from_numpy(PICTURES.pictures[:4])))
    assert len(logits) == len(fitted.stages()) == 4
    # The first exit is ahead of every bottleneck.
    torch.testing.assert_close(logits[0], plain[0])


def test_a_bottleneck_at_one_cut_changes_no_exit_before_it() -> None:
    model = Bottlenecked(network_of(SHIPPED_BUNDLE, SHIPPED), SHIPPED.input.shape, 16, cuts=(2,)).eval()
    pictures = NORMALISE(torch.from_numpy(PICTURES.pictures[:4]))
    with torch.no_grad():
        coded, plain = model(pictures), model.network(pictures)
        shapes = [stage(torch.zeros(1, 16, 14, 14))[0].shape[1:] for stage in model.stages()[1:2]]
    assert shapes == [(16, 7, 7)]
    assert [torch.equal(one, other) for one, other in zip(coded, plain, strict=True)] == [
        True,
        True,
        False,
        False,
    ]


def test_a_network_comes_back_from_its_bundle() -> None:
    network = network_of(SHIPPED_BUNDLE, SHIPPED)
    with torch.no_grad():
        logits = network.eval()(NORMALISE(torch.from_numpy(PICTURES.pictures[:100])))
    labels = torch.stack(logits, dim=1).argmax(2).numpy()
    assert (labels == read_trace(SHIPPED_BUNDLE).label[SAMPLE.indices[:100]]).mean() > 0.99


def test_bundles_that_cannot_be_trained_on(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be trained on"):
        network_of(tmp_path, SHIPPED)
    recipe = SHIPPED.trained.recipe | {"bottleneck": 16}
    shortened = SHIPPED.model_copy(update={"trained": SHIPPED.trained.model_copy(update={"recipe": recipe})})
    with pytest.raises(BundleError, match="bottlenecks already"):
        network_of(SHIPPED_BUNDLE, shortened)
    save_file({"features.0": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(BundleError, match="does not fit mobilenetv2"):
        network_of(tmp_path, SHIPPED)
