"""A start from a fixed transform: weights that make a fresh autoencoder code the leading 3-D DCT coefficients.

Every block holds the identity at first, so the network is linear but for the decoder's head. Going down, each step's
conv is set, by least squares on sample clips, to the linear functions of its input that tell most about the block of
pixels below; the last conv to the `latent_channels` DCT coefficients with the most energy. Going up, each step
takes the coefficients' pictures apart. Only the taps that look at the position itself are set. What the transform does
not need keeps a small random start, and training finds the overlap between blocks and all that is not linear.
"""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcvideogen.autoencoder.layers import PRESENT_TAP, Downsample, ResBlock, Upsample
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.networks import DecoderHead
from dcvideogen.autoencoder.shuffle import averaging_shortcut, pixel_unshuffle_3d
from dcvideogen.autoencoder.state import StreamState
from dcvideogen.errors import UserError
from dcvideogen.training.blocks import COLOURS, cut, dct_basis, dct_matrix, from_blocks, to_blocks

log = logging.getLogger(__name__)

# The head's RMSNorm would divide by the picture's own size; one channel held at this value keeps it about constant.
HELD = 16.0
# The head's SiLU works at OFFSET + SLOPE * pixel, where it is close to a straight line.
OFFSET, SLOPE = 4.0, 1.5
RIDGE = 1e-3  # relative noise that the least squares allow for, see `least_squares`
REFINED = 3  # down steps that are improved together
SPARE = 0.05  # scale of the random start of decoder channels that the transform leaves unused


def start_from_dct(model: AutoencoderDCV, videos: Tensor, refine_steps: int = 60) -> float:
    """Sets the model's weights from sample clips (B, 3, T, H, W); returns the share of their energy that the DCT keeps.

    T, H and W must be multiples of the compression ratios; a few thousand blocks are enough. Raises UserError when
    the shallowest stage is too narrow to hold the pixels, or there are too few stages.
    """
    s, t = model.config.spatial_factors[0], model.config.temporal_factors[0]
    if model.config.block_out_channels[0] <= 3 * s * s * t:
        raise UserError(
            f"block_out_channels[0] is {model.config.block_out_channels[0]}; a start from the DCT needs more than "
            f"{3 * s * s * t}: widen it or use start: random"
        )
    if len(model.config.block_out_channels) <= REFINED:
        raise UserError(
            f"{len(model.config.block_out_channels)} stages; a start from the DCT needs at least {REFINED + 1}: "
            "add stages or use start: random"
        )
    t, b = model.geometry.temporal_ratio, model.geometry.spatial_ratio
    with torch.no_grad():
        blocks = to_blocks(videos, t, b).unflatten(1, (3, t, b, b))
        d = dct_matrix(b)
        coefficients = torch.einsum("ncthw,kc,st,uh,vw->nksuv", blocks, COLOURS, dct_matrix(t), d, d).flatten(1)
        energy = coefficients.var(0)
        kept = energy.argsort(descending=True)[: model.config.latent_channels]
        wanted, basis = coefficients[:, kept], dct_basis(kept, t, b)
        goal = from_blocks(wanted @ basis.flatten(1), videos.shape, t, b)
        normalised = (wanted - wanted.mean(0)) / wanted.std(0)
        set_encoder(model, videos, goal, normalised)
        latents = refine_encoder(model, videos, normalised, wanted.std(0), refine_steps)
        set_decoder(model, latents, *least_squares(latents, wanted), basis)
        set_head(model.decoder.layers[-1])
    return float(energy[kept].sum() / energy.sum())


def least_squares(inputs: Tensor, targets: Tensor, ridge: float = RIDGE) -> tuple[Tensor, Tensor]:
    """(weight, bias) of the best affine map from inputs (N, i) to targets (N, o).

    ridge: the map is the best one for inputs with this much relative noise in their energy. It costs 0.15 dB at the
    start, and without it large weights cancel each other and the first steps of training break them apart.
    """
    mean_in, mean_out = inputs.mean(0), targets.mean(0)
    centred = inputs - mean_in
    gram = (centred.T @ centred).double()
    gram.diagonal().mul_(1 + ridge).add_(1e-6 * gram.diagonal().mean())
    weight = torch.linalg.solve(gram, (centred.T @ (targets - mean_out)).double()).T.float()
    return weight, mean_out - weight @ mean_in


def set_centre(conv: nn.Conv3d, weight: Tensor, bias: Tensor, spare: float) -> None:
    """Sets the first outputs of a conv to an affine map of its first inputs; other outputs stay random, scaled."""
    outputs, inputs = weight.shape
    conv.weight[outputs:] *= spare
    conv.weight[:outputs] = 0
    conv.weight[:outputs, :inputs, PRESENT_TAP[conv.temporal_mode], 1, 1] = weight
    conv.bias.zero_()
    conv.bias[:outputs] = bias


def leading_directions(pictures: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Columns (pixels, n) -> orthonormal directions (pixels, r) of most energy and scales (r,), r <= most.

    A scale brings a coefficient to the square root of its relative size: to equal sizes would amplify what
    hardly matters, and sizes as they are would leave the small ones out of training's reach.
    """
    directions, sizes, _ = torch.linalg.svd(pictures.double(), full_matrices=False)
    rank = min(most, int((sizes > 1e-3 * sizes[0]).sum()))
    return directions[:, :rank].float(), (sizes[:rank] * sizes[0]).rsqrt().float()


def square_root(samples: Tensor) -> Tensor:
    """(N, i) -> matrix R (i, i) with R R^T the covariance of the samples."""
    centred = samples - samples.mean(0)
    values, vectors = torch.linalg.eigh((centred.T @ centred / len(centred)).double())
    return (vectors * values.clamp(min=0).sqrt()).float()


def set_encoder(model: AutoencoderDCV, videos: Tensor, goal: Tensor, latents: Tensor) -> Tensor:
    """Fits the encoder to give `latents` (blocks, C) of `videos`, and returns what it gives.

    goal: the videos as the wanted latents describe them; each step keeps what tells most about its blocks.
    """
    state = StreamState()
    state.keep_frames = False
    x, t, b = videos, 1, 1
    for layer in model.encoder.layers:
        features = to_blocks(x, 1, 1)
        if isinstance(layer, Downsample):
            weight, _ = least_squares(features, to_blocks(goal, t, b))
            directions, scales = leading_directions(weight @ square_root(features), layer.conv.out_channels)
            weight = scales[:, None] * (directions.T @ weight)
            set_centre(layer.conv, weight, -weight @ features.mean(0), 1.0)
            t, b = t * layer.t, b * layer.s
        elif not isinstance(layer, ResBlock):
            set_centre(layer, *least_squares(features, latents), 1.0)
        x = layer(x, state, True)
    return to_blocks(x, 1, 1)


def refine_encoder(model: AutoencoderDCV, videos: Tensor, latents: Tensor, sizes: Tensor, steps: int) -> Tensor:
    """Improves the last down steps together, by L-BFGS on what `latents` (blocks, C) of these `sizes` lose.

    Step by step each one keeps what matters most by itself; but a step passes on the same few functions of every
    sub-position, and together they can do better: 1.3 of the 1.6 dB that the encoder loses against the DCT come back.
    """
    layers = list(model.encoder.layers)
    steps_down = [index for index, layer in enumerate(layers) if isinstance(layer, Downsample)][-REFINED:]
    state = StreamState()
    state.keep_frames = False
    x = videos
    for layer in layers[: steps_down[0]]:
        x = layer(x, state, True)
    wanted = latents * sizes  # centred

    present = PRESENT_TAP[model.config.temporal_mode]
    maps = [layers[index].conv.weight[:, :, present, 1, 1].clone().requires_grad_() for index in steps_down]

    def lost() -> Tensor:
        features = x
        for weight, index in zip(maps, steps_down, strict=True):
            layer = layers[index]
            y = pixel_unshuffle_3d(torch.einsum("oi,bithw->bothw", weight, features), layer.s, layer.t)
            shortcut = averaging_shortcut(features, layer.s, layer.t, layer.out_channels)
            features = y + shortcut
        features = to_blocks(features, 1, 1)
        features = features - features.mean(0)
        gram, cross = features.T @ features, features.T @ wanted
        gram = gram + torch.diag(gram.diagonal() * RIDGE + 1e-6 * gram.diagonal().mean())
        explained = (cross * torch.linalg.solve(gram, cross)).sum()
        return 1 - explained / wanted.square().sum()

    optimizer = torch.optim.LBFGS(maps, max_iter=steps, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = lost()
        loss.backward()
        return loss

    with torch.enable_grad():
        before = optimizer.step(closure).item() if steps else lost().item()
    log.info("linear start: lost by the encoder %.3f %% -> %.3f %%", 100 * before, 100 * lost().item())

    for layer in layers[steps_down[0] :]:
        features = to_blocks(x, 1, 1)
        if isinstance(layer, Downsample):
            weight = maps.pop(0).detach()
            set_centre(layer.conv, weight, -weight @ features.mean(0), 1.0)
        elif not isinstance(layer, ResBlock):
            set_centre(layer, *least_squares(features, latents), 1.0)
        x = layer(x, state, True)
    return to_blocks(x, 1, 1)


def set_decoder(model: AutoencoderDCV, latents: Tensor, weight: Tensor, bias: Tensor, basis: Tensor) -> None:
    """Sets the decoder up to its head to draw (weight @ latents + bias) in pictures `basis` (K, 3, t, b, b)."""
    first, *layers = model.decoder.layers
    steps = [layer for layer in layers if isinstance(layer, Upsample)]
    set_centre(first, torch.eye(latents.shape[1]), torch.zeros(latents.shape[1]), SPARE)
    samples = latents
    pictures = torch.einsum("kcthw,ki->icthw", basis, weight)  # what a unit of each input draws
    ground = torch.einsum("kcthw,k->cthw", basis, bias)[None]  # what is drawn where all inputs are zero
    for step in steps:
        parts, grounds = cut(pictures, step.t, step.s), cut(ground, step.t, step.s)[:, 0]
        columns, shifts = parts.flatten(2).transpose(1, 2), grounds.flatten(1)  # (P, pixels, inputs), (P, pixels)
        if step is steps[-1]:  # its outputs are the pixels themselves, and the held channel
            maps = F.pad(columns, (0, 0, 0, 1))
            offsets = F.pad(shifts, (0, 1), value=HELD)
        else:
            middle = shifts.mean(0)
            drawn = torch.cat([columns @ square_root(samples), (shifts - middle)[..., None]], 2)
            outputs = step.conv.out_channels // len(columns)
            directions, scales = leading_directions(drawn.transpose(0, 1).flatten(1), outputs)
            maps = scales[:, None] * (directions.T @ columns)
            offsets = (shifts - middle) @ (directions * scales)
            samples = (samples @ maps.transpose(1, 2) + offsets[:, None]).flatten(0, 1)
            samples = samples[:: math.ceil(len(samples) / 20_000)]
            pictures = (directions / scales).T.unflatten(1, parts.shape[2:])
            ground = middle.view(1, *parts.shape[2:])
        set_step(step, maps, offsets)


def set_step(step: Upsample, maps: Tensor, offsets: Tensor) -> None:
    """Makes an up step give, at sub-position p, maps[p] @ input + offsets[p] in its first channels."""
    positions, rank, inputs = maps.shape
    present = PRESENT_TAP[step.conv.temporal_mode]
    weight = step.conv.weight.view(-1, positions, *step.conv.weight.shape[1:])
    weight[rank:] *= SPARE
    weight[:rank] = 0
    weight[:rank, :, :inputs, present, 1, 1] = maps.transpose(0, 1)
    step.conv.bias.zero_()
    step.conv.bias.view(-1, positions)[:rank] = offsets.T
    # The parameter-free shortcut adds input row // repeats to output row; take that away.
    rows = torch.arange(step.conv.out_channels)
    step.conv.weight[rows, rows // (step.conv.out_channels // step.in_channels), present, 1, 1] -= 1


def set_head(head: DecoderHead) -> None:
    """Makes the head pass its first channels, the pixels, as they are."""
    pixels, width = head.upsample.conv.weight.shape[:2]
    head.norm.weight.fill_(SPARE)
    head.norm.weight[:pixels] = SLOPE * HELD / math.sqrt(width)
    head.norm.bias.zero_()
    head.norm.bias[:pixels] = OFFSET
    values = torch.linspace(-1, 1, 201)
    slope, shift = least_squares(F.silu(SLOPE * values + OFFSET)[:, None], values[:, None])
    set_centre(head.upsample.conv, slope * torch.eye(pixels), shift.expand(pixels), 1.0)
