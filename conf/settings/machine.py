"""The knobs of how a run is computed, and on what: devices, processes, precision, kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from conf import knobs

knob = partial(knobs.knob, group="machine")


@dataclass(frozen=True, kw_only=True)
class MachineSettings:
    gpu: bool | None = knob(
        "true demands CUDA, false keeps to the CPU; CUDA_VISIBLE_DEVICES chooses devices (default: what is there)",
        default=None,
    )
    procs: int = knob(
        "processes on this machine, on CUDA with a device each (0: as many as there are devices that share -b evenly "
        "and get at least 1,024 images of a step each, else one)",
        default=0,
        high=128,
    )
    sync_bn: bool = knob(
        "batch norm over all processes' images; CUDA only",
        default=False,
        changes="result",
        untrained=False,
    )
    amp: str = knob(
        "mixed precision; auto: on CUDA bf16, or fp16 where the device has no bf16, and off elsewhere; off: float32, "
        "without TF32 (default: auto to train, off for -test, -export and -predict)",
        default="auto",
        untrained="off",
        given=True,
        choices=("auto", "bf16", "fp16", "off"),
    )
    workers: int | None = knob(
        "processes that decode a folder of images that streams (0: none beside this one; default: one fewer than each "
        "process of -procs has cores, at least 1 and at most 8)",
        default=None,
        short="w",
        high=128,
    )
    memory: float = knob(
        "GB (10^9 bytes) of pixels up to which a folder of images is held in memory; a larger one streams from disk "
        "(default: 2)",
        default=2.0,
        kept=True,
        low=0.0,
    )
    channels_last: bool = knob("channels_last memory format of weights and images; false: NCHW", default=True)
    compile: str = knob(
        "torch.compile for training and its evaluations, in this mode; reduce-overhead is for CUDA",
        default="off",
        untrained="off",
        choices=("off", "default", "reduce-overhead", "max-autotune-no-cudagraphs"),
        switch="default",
    )
    graphs: bool | None = knob(
        "training steps replayed as a CUDA graph, which the host launches at once (default: on CUDA, in one process, "
        "without -compile reduce-overhead, -fused false and muon)",
        default=None,
        untrained=False,
    )
    kernels: bool | None = knob(
        "cheapV2's and cheapV3's widened blocks trained by models/ops/kernels.c, on a CPU; true demands it "
        "(default: where a C compiler is found)",
        default=None,
        untrained=False,
    )
    fused: bool = knob(
        "the optimizer's step in one kernel; false: torch's choice, one per operation (CUDA) or per parameter",
        default=True,
        kept=True,
    )
    deterministic: bool = knob("torch's deterministic algorithms only, on every device", default=False)
    cudnn_benchmark: bool = knob(
        "on CUDA cuDNN tries its algorithms out for each shape of a batch when a run starts, and takes the fastest, in "
        "place of those that it holds to be so",
        default=False,
        untrained=False,
    )
