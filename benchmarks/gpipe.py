"""A rival: the network without early exits, cut in two, by torch.distributed.pipelining over gloo.

python gpipe.py RANK PORT MICROBATCH FRAMES MODE prints this rank's rate, CPU and share of right answers.
"""

import json
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator

import networks
import numpy as np
import torch
from torch import Tensor, nn

from mqtt_mdi.bundle.manifest import SHIPPED_BUNDLE, read_manifest
from mqtt_mdi.bundle.sample import read_sample
from mqtt_mdi.wire.frames import decode_frame, encode_png

RANKS = 2
IN_FLIGHT = 64
"""Frames in one step of the schedule: as many as ours has without an answer."""


def half(rank: int, *, script: bool) -> nn.Module:
    """The layers of one rank, in torch as it is or compiled by TorchScript."""
    network = networks.shipped()
    stages, manifest = network.stages, network.manifest
    middle = len(stages) // 2
    mine = stages[:middle] if rank == 0 else stages[middle:]
    module: nn.Module = nn.Sequential(*(stage.body for stage in mine))
    if rank == RANKS - 1:
        module.append(mine[-1].head)  # type: ignore[operator] # it is a Sequential
    if not script:
        return module
    example = torch.zeros(1, *manifest.stage(1 if rank == 0 else middle + 1).input_shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(module.eval(), example)  # type: ignore[no-untyped-call]
        return torch.jit.optimize_for_inference(torch.jit.freeze(traced))


def batches(frames: int) -> Iterator[Tensor]:
    """Pictures as a sensor sends them, decoded, so many that they fill a step."""
    spec = read_manifest(SHIPPED_BUNDLE).input
    pictures = [encode_png(picture) for picture in read_sample(SHIPPED_BUNDLE).pictures]
    for start in range(0, frames, IN_FLIGHT):
        chosen = (pictures[number % len(pictures)] for number in range(start, start + IN_FLIGHT))
        yield torch.from_numpy(np.concatenate([decode_frame(frame, spec) for frame in chosen]))


def main() -> None:
    """Run one rank."""
    rank, port, microbatch, frames = map(int, sys.argv[1:5])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    from torch import distributed  # noqa: PLC0415 -- it reads the environment
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe  # noqa: PLC0415

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    module = half(rank, script=sys.argv[5] == "script")
    stage = PipelineStage(module, rank, RANKS, torch.device("cpu"))
    schedule = ScheduleGPipe(stage, IN_FLIGHT // microbatch)
    labels: list[Tensor] = []

    def steps(count: int) -> Iterable[tuple[Tensor, ...]]:
        """The first rank is given pictures; the other hears from it."""
        if rank == 0:
            return ((batch,) for batch in batches(count))
        return ((),) * -(-count // IN_FLIGHT)

    with torch.no_grad():
        for inputs in steps(IN_FLIGHT):
            schedule.step(*inputs)
        distributed.barrier()
        began, spent = time.monotonic(), time.process_time()
        for inputs in steps(frames):
            logits = schedule.step(*inputs)
            if logits is not None:
                labels.append(logits.argmax(1))
        seconds, spent = time.monotonic() - began, time.process_time() - spent
        distributed.barrier()
    if labels:
        answers, truth = torch.cat(labels).numpy(), read_sample(SHIPPED_BUNDLE).labels
        right = float((answers == truth[np.arange(len(answers)) % len(truth)]).mean())
        print(json.dumps({"frames": len(answers), "seconds": seconds, "cpu": spent, "right": right}))
    else:
        print(json.dumps({"seconds": seconds, "cpu": spent}))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
