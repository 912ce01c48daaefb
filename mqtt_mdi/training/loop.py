"""One training loop for every method: seeded, resumable after each epoch, with averaged weights."""

import math
from collections.abc import Callable
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from mqtt_mdi.datasets.labelled import Labelled
from mqtt_mdi.datasets.normalisation import Normalisation
from mqtt_mdi.errors import ConfigError, out_of_memory
from mqtt_mdi.training.checkpoint import load_checkpoint, run_of, save_checkpoint
from mqtt_mdi.training.methods import Loss
from mqtt_mdi.training.recipe import Recipe

_NO_ROOM = (ENOSPC, EDQUOT, EFBIG)

Progress = Callable[[int, int, int, float], None]
"""Called after each step with epoch, step, steps per epoch and loss."""

Tensors = tuple[Tensor, ...] | list[Tensor]

Watch = Callable[[int, float, nn.Module], None]
"""Called after each epoch with its number from 1, its mean loss and the averaged model."""


def augment(pictures: Tensor, generator: torch.Generator, pad: int, *, mirror: bool = True) -> Tensor:
    """Random crops after padding, and random mirroring if wanted, of a batch (N, C, H, W) uint8."""
    count, _, height, width = pictures.shape
    padded = functional.pad(pictures, (pad, pad, pad, pad))
    top = torch.randint(0, 2 * pad + 1, (count, 1, 1), generator=generator)
    left = torch.randint(0, 2 * pad + 1, (count, 1, 1), generator=generator)
    columns = torch.arange(width).expand(count, 1, width)
    mirrored = torch.rand((count, 1, 1), generator=generator) < (0.5 if mirror else 0)
    columns = torch.where(mirrored, width - 1 - columns, columns) + left
    lines = torch.arange(height).view(1, height, 1) + top
    # Drawn on the CPU, so that a run with a GPU sees the same pictures.
    columns, lines = columns.to(pictures.device), lines.to(pictures.device)
    index = torch.arange(count, device=pictures.device).view(count, 1, 1)
    return padded.permute(0, 2, 3, 1)[index, lines, columns].permute(0, 3, 1, 2)


def erase(pictures: Tensor, generator: torch.Generator, side: int) -> Tensor:
    """Hide a square of `side` pixels, at a random place and partly outside at times, in each (N, C, H, W).

    Cutout (DeVries and Taylor, arXiv 1708.04552); zero is the mean of pictures that are normalised.
    """
    count, _, height, width = pictures.shape
    top = torch.randint(0, height, (count, 1, 1, 1), generator=generator) - side // 2
    left = torch.randint(0, width, (count, 1, 1, 1), generator=generator) - side // 2
    lines, columns = torch.arange(height).view(1, 1, height, 1), torch.arange(width)
    hidden = (lines >= top) & (lines < top + side) & (columns >= left) & (columns < left + side)
    return pictures.masked_fill(hidden.to(pictures.device), 0)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Linear warm-up over a tenth of the steps, then half a cosine down to zero."""
    warm = max(1, steps // 10)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


@torch.no_grad()
def _follow(averaged: Tensors, current: Tensors, keep: float) -> None:
    """Move a moving average of weights towards the current ones; counters are copied."""
    if averaged[0].is_floating_point():
        ema = torch.optim.swa_utils.get_ema_multi_avg_fn(keep)  # type: ignore[no-untyped-call]
        ema(averaged, current, 0)
    else:
        for mean, new in zip(averaged, current, strict=True):
            mean.copy_(new)


def _parameter_groups(model: nn.Module, decay: float) -> list[dict[str, object]]:
    """Weight decay for weights of layers alone, not for biases and batch normalisation."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]


def fit(  # noqa: PLR0913 -- each is an independent choice of the caller
    model: nn.Module,
    samples: Labelled,
    normalise: Normalisation,
    recipe: Recipe,
    *,
    loss: Loss,
    checkpoint: Path,
    progress: Progress,
    watch: Watch | None = None,
    device: str = "cpu",
) -> nn.Module:
    """Train `model`; return its weight average.

    After each epoch everything needed to go on is in `checkpoint`; a run that was cut short and
    resumed ends with the same weights as one that was not. The returned model is the exponential
    moving average of the weights (Polyak averaging), in evaluation mode. On a GPU it computes in mixed
    precision (bfloat16). Raises ConfigError when there are too few samples for one batch, the checkpoint
    is of another run or cannot be written, the loss is not finite, or memory runs out.
    """
    try:
        return _fit(model, samples, normalise, recipe, loss, checkpoint, progress, watch, device)
    except OSError as error:
        remedy = "make room" if error.errno in _NO_ROOM else "make it writable"
        raise ConfigError(
            f"cannot write into {checkpoint.parent}: {error.strerror or error}; {remedy}, and the same "
            "command goes on from the last epoch that was saved"
        ) from error
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise ConfigError(
            f"out of memory on {device} with batches of {recipe.batch}: choose a smaller --batch or --width"
        ) from error


def _fit(  # noqa: PLR0913, PLR0917 -- those of `fit`
    model: nn.Module,
    samples: Labelled,
    normalise: Normalisation,
    recipe: Recipe,
    loss: Loss,
    checkpoint: Path,
    progress: Progress,
    watch: Watch | None,
    device: str,
) -> nn.Module:
    if len(samples.labels) < recipe.batch:
        raise ConfigError(
            f"{len(samples.labels)} samples do not fill a batch of {recipe.batch}; choose a smaller --batch"
        )
    pictures = torch.from_numpy(samples.pictures).to(device)
    labels = torch.from_numpy(samples.labels).to(device)
    torch.manual_seed(recipe.seed)
    run = run_of(recipe, model, samples, normalise)
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    keep = 0.0
    average = torch.optim.swa_utils.AveragedModel(
        model,
        multi_avg_fn=lambda averaged, current, _count: _follow(averaged, current, keep),
        use_buffers=True,
    )
    optimizer = torch.optim.SGD(
        _parameter_groups(model, recipe.weight_decay),
        recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
    )
    first = 0
    if state := load_checkpoint(checkpoint, run):
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["epoch"])
    steps = len(labels) // recipe.batch
    for epoch in range(first, recipe.epochs):
        # One seed per epoch makes a resumed run repeat the uninterrupted one.
        torch.manual_seed(recipe.seed * 10_000 + epoch)
        view = epoch % recipe.views if recipe.views else epoch
        generator = torch.Generator().manual_seed(recipe.seed * 10_000 + view)
        order = torch.randperm(len(labels), generator=generator).to(device)
        model.train()
        total = torch.zeros((), device=device)
        for step in range(steps):
            chosen = order[step * recipe.batch : (step + 1) * recipe.batch]
            batch = normalise(augment(pictures[chosen], generator, recipe.shift, mirror=recipe.mirror))
            if recipe.erase:
                batch = erase(batch, generator, recipe.erase)
            done = epoch * steps + step
            rate = learning_rate(recipe, done, recipe.epochs * steps)
            for group in optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
                logits = model(batch.contiguous(memory_format=torch.channels_last))
            value = loss([said.float() for said in logits], labels[chosen])
            optimizer.zero_grad(set_to_none=True)
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            # It follows faster at first, so that it leaves the weights it began with.
            keep = min(recipe.average_decay, (1 + done) / (10 + done))
            average.update_parameters(model)
            total += value.detach()
            # Reading a value waits for the GPU, so not at each step.
            if device == "cpu" or step % 20 == 0 or step == steps - 1:
                progress(epoch, step, steps, reached := float(value.detach()))
                if not math.isfinite(reached):
                    raise ConfigError(
                        f"the loss became {reached} in epoch {epoch + 1}: choose a --learning-rate below "
                        f"{recipe.learning_rate:g}"
                    )
        if watch is not None:
            watch(
                epoch + 1, float(total) / steps, average.module
            )  # before: what is saved is not watched again
        save_checkpoint(
            checkpoint,
            {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
                "run": run,
            },
        )
    return average.module.cpu().eval()
