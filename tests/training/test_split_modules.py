from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import ConfigError
from mqtt_mdi.models.stage import StagedModel
from mqtt_mdi.splitting.heads import fit_heads, head_for
from mqtt_mdi.splitting.module import split_module
from mqtt_mdi.splitting.tapped import Split, TappedModel

EXAMPLE = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
OTHER = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(2))


class Residual(nn.Module):
    """A stem, blocks with a skip each, and a classifier; `forward` asks for the number of samples."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.relu = nn.ReLU(inplace=True)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(4, 4, 3, 1, 1), Plus()) for _ in range(4))
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.dropout = nn.Dropout()
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        samples = x.shape[0]
        x = self.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.dropout(self.pool(x)).view(samples, -1))


class Plus(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(x).relu()


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.rand(1, 1, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classifier = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.encoder(torch.cat([self.token.expand(x.shape[0], -1, -1), tokens], dim=1))
        return self.classifier(tokens[:, 0])


class Odd(nn.Module):
    """Three layers, put together by a function."""

    def __init__(self, together: Callable[["Odd", Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 4, 3, 1, 1)
        self.relu = nn.ReLU()
        self.classifier = nn.Linear(4, 5)
        self.together = together

    def forward(self, x: Tensor) -> Tensor:
        return self.together(self, x)

    def end(self, x: Tensor) -> Tensor:
        return self.classifier(x.mean((2, 3)))


def tapped(module: nn.Module, *cuts: str, last: str | None = None) -> TappedModel:
    return TappedModel(module, Split("test:build", cuts, last), EXAMPLE, 5)


@settings(max_examples=4, deadline=None)
@given(st.sets(st.sampled_from(["stem", "relu", *(f"blocks.{k}" for k in range(4)), "pool"]), min_size=1))
def test_the_parts_together_give_what_the_whole_gives(cuts: set[str]) -> None:
    model = tapped(Residual(), *cuts).eval()
    stages = model.stages()
    assert len(stages) == len(cuts) + 1
    x = OTHER
    for stage, expected in zip(stages, model(OTHER), strict=True):
        x, logits = stage(x.clone())
        torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(x, model.module(OTHER))


def test_the_parts_share_the_parameters_and_leave_the_module_as_it_was() -> None:
    module = Residual().train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    parts = split_module(module, EXAMPLE, ["blocks.1"])
    mine = {id(parameter) for parameter in module.parameters()}
    assert {id(parameter) for part in parts for parameter in part.parameters()} == mine
    assert module.training
    assert not any(layer._forward_hooks for layer in module.modules())
    for name, value in module.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_cuts_are_taken_in_the_order_they_run() -> None:
    model = tapped(Residual(), "blocks.2", "stem", last="pool")
    assert model.layers == ["stem", "blocks.2", "pool"]
    assert isinstance(model, StagedModel)
    assert [tuple(logits.shape) for logits in model(OTHER)] == [(3, 5)] * 3
    assert len(model.stages()) == 3


def test_tokens_of_a_transformer() -> None:
    model = tapped(Transformer(), "encoder.layers.0").eval()
    x = OTHER
    for stage, expected in zip(model.stages(), model(OTHER), strict=True):
        x, logits = stage(x)
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_a_network_can_end_with_its_last_layer() -> None:
    (stage,) = tapped(Residual(), last="classifier").stages()
    assert stage(OTHER)[1].shape == (3, 5)


def test_what_comes_behind_the_last_layer_is_dropped() -> None:
    """Whatever the network gives, works with in place, or takes from before a cut."""

    def together(net: Odd, x: Tensor) -> Any:  # noqa: ANN401 -- networks give all sorts
        first = net.first(x)
        second = net.second(first)
        return {"logits": net.end(second.relu_()), "skip": net.relu(first) + second}

    model = tapped(Odd(together), "first", last="second").eval()
    (before, after) = model.stages()
    assert len(list(after.body.parameters())) == 2
    expected = model.module.second(model.module.first(OTHER))
    torch.testing.assert_close(after.body(before.body(OTHER)), expected)


def test_features_are_those_that_the_exits_classify() -> None:
    model = tapped(Residual(), "stem", last="pool")
    pictures = (OTHER * 255).to(torch.uint8)
    seen: list[tuple[int, int]] = []
    normalise = Normalisation((0.5,) * 3, (0.2,) * 3)
    features = model.features(pictures, normalise, lambda *at: seen.append(at), batch=2)
    assert seen == [(2, 3), (3, 3)]
    with torch.no_grad():
        for head, known, expected in zip(model.heads, features, model(normalise(pictures)), strict=True):
            torch.testing.assert_close(head.classify(known), expected)


def test_exits_learn_what_features_tell() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(0, 3, (300,), generator=generator)
    told = nn.functional.one_hot(labels, 3) + 0.1 * torch.randn(300, 3, generator=generator)
    torch.manual_seed(1)
    heads = [head_for((3, 4, 4), 3), head_for((7, 3), 3)]
    losses: list[float] = []
    fit_heads(
        heads, [told, told], labels, epochs=20, batch=30, seed=1, done=lambda _, loss: losses.append(loss)
    )
    assert losses[-1] < 0.5 * losses[0]
    for head in heads:
        assert not head.training
        assert (head.classify(told).argmax(1) == labels).float().mean() > 0.95


def test_too_few_samples_for_a_batch() -> None:
    with pytest.raises(ConfigError, match="10 samples do not fill a batch of 20"):
        fit_heads([], [], torch.zeros(10), epochs=1, batch=20, seed=1, done=lambda *_: None)


@pytest.mark.parametrize(
    ("cuts", "last", "message"),
    [
        (["block.1"], None, "no layer 'block.1'; near it: .*blocks.1"),
        ([""], None, "no layer ''"),
        (["stem", "stem"], None, "'stem' is named twice"),
        (["pool"], "stem", "--cut pool runs after --last stem"),
        (["classifier"], None, "--cut classifier is where the network ends"),
        (["blocks.1.1.norm"], None, "crossed by what comes from 'blocks.1.0' and 'blocks.1.1.norm'"),
    ],
)
def test_cuts_that_do_not_fit(cuts: list[str], last: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tapped(Residual(), *cuts, last=last).stages()


def _branch(net: Odd, x: Tensor) -> Tensor:
    x = net.first(x)
    if x.mean() > 0:
        x = 2 * x
    return net.end(net.second(x))


def _size_of_values(net: Odd, x: Tensor) -> Tensor:
    x = net.first(x)
    return net.end(net.second(x)[:, :, : int(x.abs().sum().item())])


NETWORKS = {
    "branch": (_branch, "Odd cannot be exported: .*test_split_modules.py, line .*if x.mean"),
    "size": (_size_of_values, "Odd cannot be exported: .*item"),
    "samples": (
        lambda net, x: net.end(net.second(net.first(x)).view(2, 4, 8, 8)),
        "fixes the number of samples",
    ),
    "numpy": (
        lambda net, x: net.end(net.second(torch.from_numpy(net.first(x).detach().numpy()))),
        "Odd cannot be exported: .*numpy",
    ),
    "random": (
        lambda net, x: net.end(net.second(net.first(x) + torch.rand(1))),
        "mixes the pictures of a batch, draws numbers",
    ),
    "mixing": (
        lambda net, x: net.end(nn.functional.batch_norm(net.second(net.first(x)), None, None, training=True)),
        "mixes the pictures of a batch, draws numbers",
    ),
    "picture": (
        lambda net, x: net.end(net.second(net.first(x)) + x[:, :1, ::2, ::2]),
        "the network's input and",
    ),
    "twice": (lambda net, x: net.end(net.second(net.first(net.first(x)[:, :3]))), "'first' runs 2 times"),
    "never": (lambda net, x: net.end(net.second(x.repeat(1, 2, 1, 1)[:, :4])), "'first' runs 0 times"),
    "shape": (
        lambda net, x: net.end(net.second(net.first(x[:, :1]))),
        "cannot take pictures as a tensor .2, 3",
    ),
    "classes": (
        lambda net, x: net.first(x).mean((2, 3)),
        r"gives \(2, 4\) for 2 pictures of 5 classes; .*--last",
    ),
    "two": (lambda net, x: (net.end(net.first(x)), x), "gives tuple for 2 pictures"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_cannot_be_cut(name: str) -> None:
    together, message = NETWORKS[name]
    with pytest.raises(ConfigError, match=message):
        tapped(Odd(together), "first").stages()


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (nn.LSTM(4, 4), "gives tuple, expected one tensor"),
        (nn.Flatten(0), r"gives shape \(1536,\) for 2 samples"),
    ],
)
def test_layers_that_give_no_activation(layer: nn.Module, message: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Tensor) -> Tensor:
            given = self.layer(
                x.flatten(1)[:, :, None].expand(-1, -1, 4) if isinstance(layer, nn.LSTM) else x
            )
            return given[0][:, 0] if isinstance(given, tuple) else given[:10].view(2, 5)

    with pytest.raises(ConfigError, match=message):
        tapped(Net(), "layer")


def test_a_network_that_gives_more_while_it_is_trained() -> None:
    model = tapped(
        Odd(lambda net, x: (net.end(net.second(net.first(x))), x) if net.training else net.end(net.first(x))),
        "first",
    )
    with pytest.raises(ConfigError, match=r"gives tuple while it is trained, .* auxiliary outputs"):
        model.train()(EXAMPLE)


def test_neighbouring_cuts_send_on_what_came_before() -> None:
    model = tapped(
        nn.Sequential(nn.Flatten(), *(nn.Linear(768, 768) for _ in range(2)), nn.Linear(768, 5)), "0", "1"
    )
    shapes = [
        tuple(stage.body(x).shape)
        for stage, x in zip(model.stages(), (OTHER, OTHER.flatten(1)), strict=False)
    ]
    assert shapes == [(3, 768)] * 2
    assert all(a is not b for a, b in pairwise(model.heads))
