"""Ways to generate a video, each with its memory and time, estimated before anything runs or is even downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from dcvideogen.adaptation.device_speed import conv_speed, matmul_speed
from dcvideogen.errors import UserError
from dcvideogen.pipelines.decoding import DecodeNeed, DecodePlan, decode_need, decode_needs
from dcvideogen.pipelines.memory_models import Asked, Networks

GIB = 2**30
# A process that has imported torch, diffusers and transformers: 450 MiB measured on a CPU (benchmarks/
# results/generation_memory_cpu.md). On a GPU, CUDA's context and libraries: about as much there.
LIBRARIES = 450 * 2**20
WORTHWHILE = 0.97  # a plan that takes more than this share of a faster one's memory is left out
# Noisy latents, velocities and what a multistep scheduler remembers, in fp32.
LATENT_COPIES = 8
# Strips of so many rows take so much longer than whole chunks (benchmarks/results/memory_cpu.md for 16).
STRIPS_SLOWER = {None: 1.0, 64: 1.25, 16: 1.7}
TWO_PASSES_SLOWER = 1.05  # than a batch of two, where that fills the device
HOST_LINK = 10e9  # bytes per second between host memory and a GPU, pageable memory over PCIe 4

RESIDENT, OFFLOAD, GROUPS = "resident", "offload", "groups"
PLACEMENTS = {
    RESIDENT: "all weights resident",
    OFFLOAD: "weights in host memory between phases",
    GROUPS: "the transformer's blocks in host memory, one at a time on the device",
}


@dataclass(frozen=True)
class Rates:
    """Operations per second of linear layers and of convs; `found` says how that is known."""

    matmul: float
    conv: float
    found: str


@dataclass(frozen=True)
class Phase:
    """A part of generating: bytes on the device at its peak, all that is there included, and seconds."""

    name: str
    device: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """placement: one of PLACEMENTS, as diffusers' enable_model_cpu_offload and enable_group_offload do the others.
    host: bytes of host memory at the peak; on a CPU the device's are the host's."""

    placement: str
    guidance_as_batch: bool
    decode: DecodePlan
    phases: tuple[Phase, ...]
    host: int

    @property
    def peak(self) -> int:
        """Bytes on the device."""
        return max(phase.device for phase in self.phases)

    @property
    def seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases)

    def __str__(self) -> str:
        guidance = "guidance as one batch" if self.guidance_as_batch else "guidance in two passes"
        return f"{PLACEMENTS[self.placement]}, {guidance}, decoding by {self.decode}"


def measure_rates(networks: Networks, device: torch.device) -> Rates:
    """Takes about half a second: one linear layer and one conv of the networks' widths."""
    words = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
    matmul, told = matmul_speed(networks.width, words[networks.transformers[0].dtype], device)
    channels = networks.autoencoder.config.block_out_channels[0]
    conv, told_conv = conv_speed(channels, words[networks.autoencoder.dtype], device)
    return Rates(matmul * 1e12, conv * 1e12, f"{told}, and {told_conv}")


def plans_for(networks: Networks, asked: Asked, *, on_cpu: bool, rates: Rates) -> tuple[Plan, ...]:
    """Fastest first, each with less memory than all that are faster.

    on_cpu: host memory is all there is, so weights have nowhere else to go: plans differ in guidance and decoding.
    """
    count = _Counts(networks, asked, on_cpu, rates)
    plans = [
        count.plan(placement, as_batch, decode)
        for placement in ((RESIDENT,) if on_cpu else (RESIDENT, OFFLOAD, GROUPS))
        for as_batch in ((True, False) if asked.guided else (True,))
        for decode in count.decoding
    ]
    plans.sort(key=lambda plan: (plan.seconds, plan.peak))
    best: list[Plan] = []
    for plan in plans:
        if not best or plan.peak <= WORTHWHILE * best[-1].peak:
            best.append(plan)
    return tuple(best)


def plan_for(
    networks: Networks, asked: Asked, as_batch: bool, decode: DecodePlan, *, on_cpu: bool, rates: Rates
) -> Plan:
    """That one plan, with all weights resident."""
    return _Counts(networks, asked, on_cpu, rates).plan(RESIDENT, as_batch, decode)


class _Counts:
    """What the plans are put together from, each counted once."""

    def __init__(self, networks: Networks, asked: Asked, on_cpu: bool, rates: Rates) -> None:
        self.networks, self.asked, self.on_cpu, self.rates = networks, asked, on_cpu, rates
        weights = networks.weights
        self.text, self.autoencoder = weights.get("text encoder", 0), weights["autoencoder"]
        self.transformers = [size for name, size in weights.items() if name.startswith("transformer")]
        self.text_activations = networks.text_activations(asked)
        videos = asked.videos
        self.activations = {batch: networks.transformer_activations(asked, batch) for batch in {videos, 2 * videos}}
        grid = networks.latent_shape(asked)
        self.latents = 4 * videos * networks.autoencoder.config.latent_channels * grid[0] * grid[1] * grid[2]
        self.text_seconds = networks.text_flops(asked) / rates.matmul
        passes = asked.steps * (2 if asked.guided else 1) * videos
        self.forwards = passes // videos
        self.denoise_seconds = networks.transformer_flops(asked) * passes / rates.matmul
        self.decode_seconds = networks.decode_flops(asked) / rates.conv
        sizes = (asked.height, asked.width, asked.num_frames, videos)
        self.decoding = decode_needs(networks.autoencoder, *sizes, on_cpu=on_cpu)

    def plan(self, placement: str, as_batch: bool, decode: DecodePlan) -> Plan:
        need = self.decoding.get(decode) or self._decode_need(decode)
        batch = self.asked.videos * (2 if as_batch and self.asked.guided else 1)
        everything = self.text + sum(self.transformers) + self.autoencoder
        largest, blocks = max(self.transformers), 2 * self.networks.block_bytes()
        outside = self._outside_blocks()
        there = {  # weights on the device in the three phases
            RESIDENT: (everything, everything, everything),
            OFFLOAD: (self.text, largest, self.autoencoder),
            GROUPS: (self.text, outside + blocks, self.autoencoder),
        }[placement]
        moved = {RESIDENT: (0, 0, 0), OFFLOAD: there, GROUPS: there}[placement]
        moving = [size / HOST_LINK for size in moved]
        if placement == OFFLOAD:
            moving[1] = sum(self.transformers) / HOST_LINK
        if placement == GROUPS:  # every block, in every pass
            moving[1] = self.forwards / (2 if as_batch and self.asked.guided else 1) * largest / HOST_LINK
        denoising = self.denoise_seconds * (1 if as_batch else TWO_PASSES_SLOWER)
        decoding = self.decode_seconds * STRIPS_SLOWER[decode.rows_per_step] + 2 * need.host / HOST_LINK
        latents = LATENT_COPIES * self.latents
        phases = (
            Phase("text", LIBRARIES + there[0] + self.text_activations, self.text_seconds + moving[0]),
            Phase("denoising", LIBRARIES + there[1] + self.activations[batch] + latents, denoising + moving[1]),
            Phase("decoding", LIBRARIES + there[2] + need.device, decoding + moving[2]),
        )
        host = LIBRARIES + (0 if placement == RESIDENT else everything) + need.host
        return Plan(placement, as_batch, decode, phases, max(p.device for p in phases) if self.on_cpu else host)

    def _decode_need(self, decode: DecodePlan) -> DecodeNeed:
        asked = self.asked
        sizes = (asked.height, asked.width, asked.num_frames, asked.videos)
        return decode_need(self.networks.autoencoder, decode, *sizes, on_cpu=self.on_cpu)

    def _outside_blocks(self) -> int:
        return max(self.transformers) - self.networks.blocks_bytes()


def choose_plan(plans: Sequence[Plan], budget_bytes: int) -> Plan:
    """The fastest that fits. UserError when none does, with what the smallest needs."""
    fitting = [plan for plan in plans if plan.peak <= budget_bytes]
    if not fitting:
        smallest = min(plans, key=lambda plan: plan.peak)
        phase = max(smallest.phases, key=lambda one: one.device)
        raise UserError(
            f"{in_gib(budget_bytes)} of memory may be taken and {in_gib(smallest.peak)} are needed at least, for "
            f"{phase.name} ({smallest}); make the video smaller or shorter, or allow more with --memory"
        )
    return min(fitting, key=lambda plan: plan.seconds)


def told(plan: Plan, rates: Rates) -> Iterator[str]:
    """The plan for a terminal, a line at a time."""
    parts = ", ".join(f"{phase.name} {in_gib(phase.device)}" for phase in plan.phases)
    times = ", ".join(f"{phase.name} {in_time(phase.seconds)}" for phase in plan.phases)
    yield f"plan: {plan}"
    yield f"memory: {in_gib(plan.peak)} at the peak ({parts})"
    if plan.host > LIBRARIES and plan.host != plan.peak:
        yield f"host memory: {in_gib(plan.host)}"
    yield f"time: about {in_time(plan.seconds)} ({times}), an estimate without loading and writing, from {rates.found}"


def told_all(plans: Sequence[Plan], chosen: Plan | None = None) -> Iterator[str]:
    """One line per plan, fastest first."""
    for plan in plans:
        mark = "*" if plan is chosen else " "
        yield f"{mark} {in_gib(plan.peak):>9}  {in_time(plan.seconds):>9}  {plan}"


def in_gib(size: float) -> str:
    return f"{size / GIB:.3g} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def in_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
