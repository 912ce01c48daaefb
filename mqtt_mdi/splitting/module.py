"""An ordinary torch module, cut after named layers: torch.export reads it, torch's pipeline splitter cuts it.

A stage ends after a named layer, and the activation that the layer gives is what is sent on.
"""

import io
import logging
import sysconfig
import traceback
import warnings
from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.distributed.pipelining import pipe_split, pipeline

import mqtt_mdi
from mqtt_mdi.errors import ConfigError, first_line

_OURS = ("<", *(f"{Path(file).parent}/" for file in (torch.__file__, mqtt_mdi.__file__)))
_STANDARD = sysconfig.get_path("stdlib")
_DIMENSIONS = (2, 3, 4)


class Tap(NamedTuple):
    """A layer that a stage ends after, and the shape of what it gives for one sample."""

    layer: str
    shape: tuple[int, ...]


@contextmanager
def listening(module: nn.Module, layers: Sequence[str], hear: Callable[[str, Any], Any]) -> Iterator[None]:
    """Call `hear` with name and output of each of the `layers` as soon as it has run.

    What it returns takes the place of the output, unless it is None.
    """

    def hook(layer: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda _module, _inputs, output: hear(layer, output)

    handles = [module.get_submodule(layer).register_forward_hook(hook(layer)) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def taps(module: nn.Module, example: Tensor, layers: Sequence[str]) -> tuple[list[Tap], Any]:
    """The layers in the order they run, and what the module gives for `example` (N, C, H, W), N >= 2.

    Raises ConfigError for a layer that is not there, does not run just once, or gives something else than
    one float32 tensor of two to four dimensions with the samples first.
    """
    known = [name for name, _ in module.named_modules(remove_duplicate=False) if name]
    for layer in layers:
        if layer not in known:
            near = get_close_matches(layer, known, n=4, cutoff=0.4) or known[:8]
            raise ConfigError(f"{type(module).__name__} has no layer {layer!r}; near it: {', '.join(near)}")
        if layers.count(layer) > 1:
            raise ConfigError(f"layer {layer!r} is named twice; name each cut once")
    heard: list[tuple[str, Any]] = []
    with listening(module, layers, lambda layer, output: heard.append((layer, output))):
        given = _run(module, example)
    order = [layer for layer, _ in heard]
    for layer in layers:
        if order.count(layer) != 1:
            raise ConfigError(
                f"layer {layer!r} runs {order.count(layer)} times for a picture; cut after one that runs once"
            )
    for layer, output in heard:
        if not isinstance(output, Tensor) or output.dtype != torch.float32:
            kind = output.dtype if isinstance(output, Tensor) else type(output).__name__
            raise ConfigError(f"layer {layer!r} gives {kind}, expected one tensor of float32; cut elsewhere")
        if output.ndim not in _DIMENSIONS or len(output) != len(example):
            raise ConfigError(
                f"layer {layer!r} gives shape {tuple(output.shape)} for {len(example)} samples, expected two "
                "to four dimensions with the samples first; cut elsewhere"
            )
    return [Tap(layer, tuple(output.shape[1:])) for layer, output in heard], given


def _run(module: nn.Module, example: Tensor) -> Any:  # noqa: ANN401 -- whatever a stranger's module gives
    training = module.training
    try:
        with torch.no_grad():
            return module.eval()(example)
    except Exception as error:  # whatever a stranger's module raises
        raise ConfigError(
            f"{type(module).__name__} cannot take pictures as a tensor {tuple(example.shape)}: "
            f"{first_line(error)}{place_of(error)}"
        ) from error
    finally:
        module.train(training)


def split_module(
    module: nn.Module, example: Tensor, cuts: Sequence[str], last: str | None = None
) -> list[nn.Module]:
    """Cut a module after the layers `cuts`, in the order they run; the parts share its parameters.

    With `last` the last part ends with what this layer gives, and what comes behind is in no part.

    Each part takes one tensor and gives one, in evaluation mode, with the number of samples free. `example`
    is an input (N, C, H, W), N >= 2. Raises ConfigError for what torch.export cannot follow, and where a
    skip connection crosses a cut.
    """
    example = example.clone()
    torch._dynamo.mark_dynamic(example, 0)  # noqa: SLF001 -- its public name
    training = module.training
    ends: list[Tensor] = []

    def hear(layer: str, output: Tensor) -> Tensor | None:
        if layer in cuts:
            pipe_split()  # type: ignore[no-untyped-call]
        if layer == last:
            ends.append(output.clone())  # a later layer may work in place
        return None if layer else ends.pop()

    try:
        with _quiet(), listening(module, [*cuts, *([last, ""] if last else [])], hear):
            pipe = pipeline(
                module.eval(),
                (example,),
                split_policy=lambda g: _one_tensor_a_cut(_ended(g) if last else g, cuts),
            )
        return [pipe.get_stage_module(stage) for stage in range(pipe.num_stages)]
    except ConfigError:
        raise
    except Exception as error:  # torch.export has no common base for what it raises
        raise ConfigError(_why(module, error.__cause__ or error)) from error
    finally:
        module.train(training)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what torch.export prints and warns of: its faults become our own errors."""
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        logger.setLevel(level)


def _ended(traced: fx.GraphModule) -> fx.GraphModule:
    """Drop what comes behind the output; what works in place there would count as used."""
    *others, output = traced.graph.nodes
    while others[-1] not in output.all_input_nodes:
        traced.graph.erase_node(others.pop())
    traced.graph.eliminate_dead_code()
    return traced


def _one_tensor_a_cut(traced: fx.GraphModule, cuts: Sequence[str]) -> fx.GraphModule:
    """Check that one tensor crosses each cut, and have each part ask that one for the number of samples."""
    nodes = [node for node in traced.graph.nodes if node.op != "get_attr"]
    place = {node: number for number, node in enumerate(nodes)}
    ends = [place[node] for node in nodes if node.target is torch.ops.pippy._pipe_split.default]  # noqa: SLF001
    part = {node: bisect(ends, number) for node, number in place.items()}
    crossing = {
        cut: [node for node in nodes if part[node] < cut <= max((part[u] for u in node.users), default=0)]
        for cut in range(1, len(ends) + 1)
    }
    carried: dict[int, fx.Node] = {}
    for cut, values in crossing.items():
        others = [value for value in values if not isinstance(value.meta.get("val"), torch.SymInt)]
        if len(others) != 1:
            came = " and ".join(_layer(value) for value in others) or "nothing"
            raise ConfigError(
                f"the cut after {cuts[cut - 1]!r} is crossed by what comes from {came}, where just one "
                "tensor can be sent on: a skip connection goes around it; cut where a block ends"
            )
        carried[cut] = others[0]
    tensors = set(carried.values())
    sizes = dict.fromkeys(value for values in crossing.values() for value in values if value not in tensors)
    for size in sizes:
        for user in [user for user in size.users if part[user] > part[size]]:
            with traced.graph.inserting_before(user):
                local = _recomputed(size, carried[part[user]], user, cuts[part[user] - 1])
            user.replace_input_with(size, local)
    traced.recompile()
    return traced


def _recomputed(size: fx.Node, tensor: fx.Node, user: fx.Node, cut: str) -> fx.Node:
    """A number that follows from how many samples there are, taken from `tensor` for `user` to use."""
    expression = size.meta["val"].node.expr
    lengths = [getattr(getattr(length, "node", None), "expr", None) for length in tensor.meta["val"].shape]
    graph = user.graph
    if expression in lengths:
        local = graph.call_function(torch.ops.aten.sym_size.int, (tensor, lengths.index(expression)))
    elif all(isinstance(number.meta["val"], torch.SymInt) for number in size.all_input_nodes):
        local = graph.node_copy(size, lambda number: _recomputed(number, tensor, user, cut))
    else:
        raise ConfigError(
            f"the cut after {cut!r} is crossed by the number {expression}, which does not follow from the "
            f"shape {tuple(tensor.meta['val'].shape)} that is sent on; cut elsewhere"
        )
    local.meta = {**user.meta, "val": size.meta["val"]}
    return local


def _layer(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the network's input"
    names = [name for name, _ in cast("dict[str, tuple[str, Any]]", node.meta["nn_module_stack"]).values()]
    return repr(names[-1]) if names and names[-1] else "the network's forward()"


def _why(module: nn.Module, cause: BaseException) -> str:
    name, said = type(module).__name__, first_line(cause).partition(" (unhinted")[0]
    if "specialized it to be a constant" in str(cause):
        return (
            f"{name} cannot be exported: its forward() fixes the number of samples; write x.shape[0] or "
            "x.flatten(1) where it has a number"
        )
    return (
        f"{name} cannot be exported: {said}{place_of(cause)}; torch.export follows one path "
        "through forward(), so that no branch and no size may depend on values in tensors"
    )


def place_of(error: BaseException) -> str:
    """Where in a stranger's code, neither Python's nor torch's nor ours, an error was raised."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(_OURS)
        and ("-packages" in frame.filename or not frame.filename.startswith(_STANDARD))
    ]
    return f" in {frames[-1].filename}, line {frames[-1].lineno}: {frames[-1].line}" if frames else ""
