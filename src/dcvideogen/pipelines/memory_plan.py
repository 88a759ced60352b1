"""Ways to generate a video, each with its memory and time, estimated before anything runs or is even downloaded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dcvideogen.errors import UserError
from dcvideogen.pipelines.memory_autoencoder import DecodePlan
from dcvideogen.pipelines.memory_counts import Counts, Rates
from dcvideogen.pipelines.memory_models import Asked, Networks

GIB = 2**30
# A process that has imported torch, diffusers and transformers: measured on a CPU (benchmarks/results/
# generation_memory_cpu.md). On a GPU, CUDA's context and libraries take about as much there (not measured).
LIBRARIES = 480 * 2**20
WORTHWHILE = 0.97  # a plan that takes more than this share of a faster one's memory is left out
TWO_PASSES_SLOWER = 1.05  # than a batch of two, which fills the device better; a guess that keeps them in order
HOST_LINK = 10e9  # bytes per second between host memory and a GPU: pageable memory over PCIe 4

RESIDENT, OFFLOAD, GROUPS = "resident", "offload", "groups"
PLACEMENTS = {
    RESIDENT: "all weights resident",
    OFFLOAD: "weights in host memory between phases",
    GROUPS: "the transformer's blocks in host memory, one at a time on the device",
}


@dataclass(frozen=True)
class Phase:
    """A part of generating: bytes on the device at its peak, all that is there included, and seconds."""

    name: str
    device: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """placement: one of PLACEMENTS, as diffusers' enable_model_cpu_offload and enable_group_offload do the others.
    decode: also how an image is encoded. host: bytes of host memory at the peak; on a CPU all there is."""

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


def plans_for(networks: Networks, asked: Asked, *, on_cpu: bool, rates: Rates) -> tuple[Plan, ...]:
    """Fastest first, each with less memory than all that are faster.

    on_cpu: host memory is all there is, so weights have nowhere else to go: plans differ in guidance and decoding.
    """
    counts = Counts(networks, asked, rates, on_cpu=on_cpu)
    plans = [
        make_plan(counts, placement, as_batch, decode)
        for placement in ((RESIDENT,) if on_cpu else PLACEMENTS)
        for as_batch in ((True, False) if asked.guided else (True,))
        for decode in tuple(counts.decoding)
    ]
    plans.sort(key=lambda plan: (plan.seconds, plan.peak))
    best: list[Plan] = []
    for plan in plans:
        if not best or plan.peak <= WORTHWHILE * best[-1].peak:
            best.append(plan)
    return tuple(best)


def make_plan(counts: Counts, placement: str, as_batch: bool, decode: DecodePlan) -> Plan:
    """That one plan. as_batch: guidance in one pass of twice the videos."""
    asked = counts.asked
    joined = counts.passes if as_batch else 1
    there, come = weights_there(counts, placement, passes=counts.forwards // joined)

    def phase(name: str, bytes_: int, seconds: float) -> Phase:
        return Phase(name, LIBRARIES + bytes_, seconds + come[name] / HOST_LINK)

    need, writing = counts.decode(decode), counts.writing()
    moved, host = 2 * need.host / HOST_LINK, need.host
    phases = [phase("text", there["text"] + counts.text_activations, counts.text_seconds)]
    if counts.networks.encodes_image(asked):
        encode = counts.encode(decode)
        image = max(there["image"] + encode.device, there["clip"] + counts.image_activations)
        phases.append(phase("image", image, counts.encode_seconds(decode) + 2 * encode.host / HOST_LINK))
        host = max(host, encode.host)
    seconds = counts.denoise_seconds(as_batch=as_batch) * (1.0 if as_batch else TWO_PASSES_SLOWER)
    activations = counts.activations[joined * asked.videos] + counts.latents
    phases.append(phase("denoising", there["denoising"] + activations, seconds))
    on_device = there["decoding"] + need.device + (writing if counts.on_cpu else 0)
    phases.append(phase("decoding", on_device, counts.decode_seconds(decode) + moved))
    host += LIBRARIES + (0 if placement == RESIDENT else sum(counts.weights.values())) + writing
    if counts.on_cpu:
        host = max(one.device for one in phases)
    return Plan(placement, as_batch, decode, tuple(phases), host)


def weights_there(counts: Counts, placement: str, *, passes: int) -> tuple[dict[str, int], dict[str, int]]:
    """Bytes of weights that are on the device for a phase, and that have to come there for it.

    In "image" the autoencoder encodes, in "clip", a part of the same phase, the image encoder looks. passes: forward
    passes while denoising.
    """
    weights, networks = counts.weights, counts.networks
    text, clip, autoencoder = (weights.get(name, 0) for name in ("text encoder", "image encoder", "autoencoder"))
    transformers = [size for name, size in weights.items() if name.startswith("transformer")]
    if placement == RESIDENT:
        phases = ("text", "image", "clip", "denoising", "decoding")
        return dict.fromkeys(phases, sum(weights.values())), dict.fromkeys(phases, 0)
    come = {"text": text, "image": autoencoder + clip, "denoising": sum(transformers), "decoding": autoencoder}
    if placement == GROUPS:
        # Two blocks at a time beside what is in no block, all of them for every pass; the autoencoder stays.
        come |= {"denoising": max(transformers) * passes, "image": clip, "decoding": 0}
        loose = max(transformers) - networks.blocks_bytes
        there = {"text": text, "image": 0, "clip": clip, "denoising": loose + 2 * networks.block_bytes, "decoding": 0}
        return {name: size + autoencoder for name, size in there.items()}, come
    # Each part goes when the next one of the pipeline's model_cpu_offload_seq comes. The autoencoder is its last: what
    # comes to encode the image is there until the end, and the text encoder goes when the image has been encoded.
    stays = autoencoder if networks.encodes_image(counts.asked) else 0
    there = {"text": text, "image": text + autoencoder, "clip": clip + autoencoder}
    there |= {"denoising": max(transformers) + stays, "decoding": autoencoder}
    return there, come


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
    if plan.host != plan.peak:
        yield f"host memory: {in_gib(plan.host)}"
    yield f"time: about {in_time(plan.seconds)} ({times}), an estimate without loading and writing, from {rates.found}"


def told_all(plans: Sequence[Plan], chosen: Plan | None = None) -> Iterator[str]:
    """A line per plan, fastest first: memory, time and what it is; the chosen one is marked."""
    for plan in plans:
        mark = "*" if plan is chosen else " "
        yield f"{mark} {in_gib(plan.peak):>9}  {in_time(plan.seconds):>9}  {plan}"


def in_gib(size: float) -> str:
    return f"{size / GIB:.3g} GiB" if size >= GIB else f"{size / 2**20:.0f} MiB"


def in_time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
