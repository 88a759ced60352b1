"""What a recipe would do and what it would cost, without training: `dcvideogen train-autoencoder RECIPE --plan`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.device_speed import device_name
from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.data.settings import BatchSettings
from dcvideogen.recipes.check import check_recipe, shape_of
from dcvideogen.recipes.recipe import AutoencoderRecipe, StageSettings
from dcvideogen.training.discriminator import PatchDiscriminator
from dcvideogen.training.journal import duration
from dcvideogen.training.parts import choose_trainable

# A backward pass is two convs of the size of the forward one: for the inputs and for the weights.
PASSES, PASSES_WITH_CHECKPOINTING = 3, 4
GIB, TERA = 2**30, 1e12
FP32_BYTES = 4


@dataclass(frozen=True)
class Cost:
    """Of one kind of batch. teraflop: of all convs in one step. activations: numbers kept for the backward pass."""

    batch: BatchSettings
    teraflop: float
    activations: int


def plan_lines(recipe: AutoencoderRecipe, *, only: str | None = None) -> Iterator[str]:
    """The plan for people, a line at a time; `only` names the one stage to speak of.

    Time and memory are estimates for one process: operations of the convs by what a conv of this model was just
    measured to do on this device, and the tensors that a step keeps. Several processes share time and activations, with
    FSDP2 also weights and optimiser.
    """
    check_recipe(recipe, num_processes=1)
    model = shape_of(recipe.start)
    yield f"model: {sum(p.numel() for p in model.parameters()) / 1e6:.4g} M parameters, start: {recipe.start.weights}"
    yield f"data: {recipe.data.source}"
    speeds: dict[str, float] = {}
    for stage in recipe.stages if only is None else (recipe.stage(only),):
        precision = stage.train.precision
        if precision not in speeds:
            speeds[precision] = measured_speed(model, precision)
        yield from stage_lines(model, stage, speeds[precision])
    for precision, speed in speeds.items():
        device = device_name(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        yield f"estimated at {speed:.3g} TFLOP/s, measured on one conv of this model in {precision} on {device}"


def stage_lines(model: AutoencoderDCV, stage: StageSettings, speed: float) -> Iterator[str]:
    choose_trainable(model, stage.trainable)
    trained, total = (
        sum(p.numel() for p in model.parameters() if p.requires_grad or everything) for everything in (False, True)
    )
    yield f"stage {stage.name}: {stage.train.steps} steps, learning rate {stage.train.learning_rate:g}"
    yield f"  trains {', '.join(stage.trainable)}: {trained / 1e6:.4g} of {total / 1e6:.4g} M parameters"
    yield f"  losses: {stage.loss.told()}"
    others = 0
    if stage.loss.gan is not None:
        with torch.device("meta"):
            discriminator = PatchDiscriminator(stage.loss.gan.channels, stage.loss.gan.regulariser)
        others = sum(p.numel() for p in discriminator.parameters())
        yield f"  discriminator: {others / 1e6:.4g} M parameters"
    costs = [cost_of(model, kind, stage.train.gradient_checkpointing) for kind in stage.batches]
    shares = sum(kind.share for kind in stage.batches)
    for cost in costs:
        kind = cost.batch
        height, width = kind.height_width
        what = "images" if kind.image else f"clips of {kind.num_frames} frames, chunks of {kind.chunk_frames}"
        yield (
            f"  {100 * kind.share / shares:.0f} % {kind.batch_size} {what}, {height}x{width}: "
            f"{cost.teraflop:.3g} TFLOP a step"
        )
    teraflop = sum(cost.batch.share / shares * cost.teraflop for cost in costs)
    # Weights; gradient, average and Adam's two moments of what is trained.
    fixed = FP32_BYTES * (total + 4 * trained + 5 * others)
    number_bytes = 2 if stage.train.precision == "bf16" else FP32_BYTES
    kept = max(cost.activations for cost in costs) * number_bytes / stage.train.accumulate
    yield (
        f"  about {duration(stage.train.steps * teraflop / speed)} ({teraflop / speed:.3g} s a step), "
        f"{fixed / GIB:.3g} GiB for weights and optimiser, {kept / GIB:.3g} GiB for activations"
    )


def cost_of(model: AutoencoderDCV, kind: BatchSettings, checkpointing: bool) -> Cost:
    """The model must be on the meta device."""
    height, width = kind.height_width
    flops = sum(conv_flops(model, kind.num_frames, height, width))
    passes = PASSES_WITH_CHECKPOINTING if checkpointing else PASSES
    kept = kept_numbers(model, kind, checkpointing)
    return Cost(kind, passes * kind.batch_size * flops / TERA, kept * kind.batch_size)


def kept_numbers(model: AutoencoderDCV, kind: BatchSettings, checkpointing: bool) -> int:
    """Numbers per clip that the forward pass leaves for the backward one.

    With checkpointing: the input of every layer, and what the largest layer keeps while it is run again.
    """
    layers = [*model.encoder.layers, *model.decoder.layers]
    inputs, own = dict.fromkeys(layers, 0), dict.fromkeys(layers, 0)
    running: list[nn.Module] = []
    held: dict[int, Tensor] = {}  # by address, which must not be used twice

    def enter(layer: nn.Module, arguments: tuple) -> None:
        running.append(layer)
        inputs[layer] += arguments[0].numel()

    def leave(_layer: nn.Module, _arguments: tuple, _output: Tensor) -> None:
        running.pop()

    def pack(tensor: Tensor) -> Tensor:
        address = tensor.untyped_storage()._cdata
        if running and address not in held and not isinstance(tensor, nn.Parameter):
            held[address] = tensor
            own[running[-1]] += tensor.numel()
        return tensor

    handles = [layer.register_forward_pre_hook(enter) for layer in layers]
    handles += [layer.register_forward_hook(leave) for layer in layers]
    try:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.empty(1, 3, kind.num_frames, *kind.height_width, device="meta"))
    finally:
        for handle in handles:
            handle.remove()
    return sum(inputs.values()) + max(own.values()) if checkpointing else sum(own.values())


def measured_speed(model: AutoencoderDCV, precision: str) -> float:
    """TFLOP/s of a conv with the channels that cost most in this model, forward and backward, on a small picture."""
    widest = model.config.block_out_channels[0]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    conv = nn.Conv3d(widest, widest, 3, padding=1, device=device)
    side, frames = (128, 40) if device.type == "cuda" else (64, 4)
    x = torch.randn(1, widest, frames, side, side, device=device, requires_grad=True)
    flops = PASSES * 2 * conv.weight[0].numel() * x.numel()
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        with torch.autocast(device.type, dtype=dtype, enabled=precision == "bf16"):
            conv(x).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return flops / best / TERA
