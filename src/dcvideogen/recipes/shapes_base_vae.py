"""Trains the shapes world's base autoencoder: diffusers' AutoencoderKLWan (f8t4c16, causal), a small one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor, nn

from dcvideogen.data.batch import ClipBatch
from dcvideogen.data.shapes import render
from dcvideogen.files import whole_folder
from dcvideogen.shapes_world import combinations
from dcvideogen.training.losses import charbonnier, squared_error

# Of the levels' range 2: what differs by less is as good as equal.
EPSILON = 0.01
CHANNELS = 16
# Standard deviation of what is added to the latents, so that the decoder takes nearby ones too; the posterior's width.
NOISE = 0.1
# Of the squared distance of latents and components, and of log variances and 2 log NOISE.
LATENTS_WEIGHT, WIDTH_WEIGHT = 0.3, 0.01


def make_vae(seed: int) -> AutoencoderKLWan:
    """1.9 M parameters. Latents (B, 16, 1 + (T - 1) / 4, H / 8, W / 8), before normalisation.

    The first factor of 2 is a rearrangement of pixels, as in Wan 2.2's autoencoder: layers at full size would take most
    of the time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKLWan(
            base_dim=16, z_dim=CHANNELS, dim_mult=[1, 2, 4], num_res_blocks=1, temperal_downsample=[True, True],
            in_channels=12, out_channels=12, patch_size=2, scale_factor_spatial=8, scale_factor_temporal=4,
        )  # fmt: skip
    # Residual branches begin at zero: 2 dB more after 75 steps.
    for module in vae.modules():
        last = {"WanResidualBlock": "conv2", "WanAttentionBlock": "proj"}.get(type(module).__name__)
        if last is not None:
            nn.init.zeros_(getattr(module, last).weight)
            nn.init.zeros_(getattr(module, last).bias)
    return vae


class RenderedCrops:
    """Batches of crops of rendered training clips, a function of (seed, step).

    num_frames, size: of the crops, in frames and pixels; clip_frames, clip_size: of the clips that they come from.
    """

    def __init__(
        self, *, batch_size: int, num_frames: int, size: int, clip_frames: int = 32, clip_size: int = 128, seed: int = 0
    ) -> None:
        self.batch_size, self.num_frames, self.size, self.seed = batch_size, num_frames, size, seed
        self.clip_frames, self.clip_size = clip_frames, clip_size
        self.combinations = combinations("train")

    def batch(self, step: int, part: int, num_parts: int) -> ClipBatch:
        own = range(part * self.batch_size // num_parts, (part + 1) * self.batch_size // num_parts)
        crops = [self._crop(step, index) for index in own]
        names = tuple(f"step {step} clip {index}" for index in own)
        return ClipBatch(torch.stack(crops), names, self.num_frames, first=own.start)

    def _crop(self, step: int, index: int) -> Tensor:
        draw = Random(f"{self.seed} {step} {index}")
        video = render(
            draw.choice(self.combinations), draw.getrandbits(32), num_frames=self.clip_frames, size=self.clip_size
        )
        for dim, length in ((1, self.num_frames), (2, self.size), (3, self.size)):
            video = video.narrow(dim, draw.randint(0, video.shape[dim] - length), length)
        return video

    def state(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "num_frames": self.num_frames, "size": self.size, "seed": self.seed}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class BlockComponents(nn.Module):
    """The first 16 principal components of blocks of 4 frames x 8 x 8 pixels, each with variance 1 on the clips given.

    They alone give clips of this world back at 30 dB. videos: (N, 3, 1 + 4 n, H, W); the first frame stands for four.
    """

    def __init__(self, videos: Tensor) -> None:
        super().__init__()
        rows = self.blocks(videos).movedim(1, -1).flatten(0, -2)
        mean = rows.mean(0)
        variances, vectors = torch.linalg.eigh(((rows - mean).T @ (rows - mean)).double() / len(rows))
        vectors = vectors[:, -CHANNELS:]
        # Either sign would do; with this one, every stage and every machine has the same components.
        vectors = vectors * vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        self.register_buffer("mean", mean)
        self.register_buffer("scaled", (vectors / variances[-CHANNELS:].sqrt()).flip(1).float())

    @staticmethod
    def blocks(videos: Tensor) -> Tensor:
        """(N, 3, 1 + 4 n, H, W) -> (N, 768, 1 + n, H / 8, W / 8)."""
        videos = torch.cat([videos[:, :, :1].expand(-1, -1, 3, -1, -1), videos], dim=2)
        count, colors, frames, height, width = videos.shape
        parts = videos.reshape(count, colors, frames // 4, 4, height // 8, 8, width // 8, 8)
        return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(count, -1, frames // 4, height // 8, width // 8)

    def forward(self, videos: Tensor) -> Tensor:
        """(N, 16, 1 + n, H / 8, W / 8)."""
        blocks = self.blocks(videos) - self.mean[:, None, None, None]
        return torch.einsum("nbthw,bc->ncthw", blocks, self.scaled)


class VaePass(nn.Module):
    """video (B, 3, T, H, W) -> reconstruction, mean and logvar of the posterior, and the components.

    The decoder is given the components or, `decoder_only`, the posterior's mean; both with noise.
    """

    def __init__(self, vae: AutoencoderKLWan, components: BlockComponents, decoder_only: bool) -> None:
        super().__init__()
        self.vae, self.components, self.decoder_only = vae, components, decoder_only

    def forward(self, video: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.set_grad_enabled(not self.decoder_only):
            posterior, target = self.vae.encode(video).latent_dist, self.components(video)
        latents = posterior.mean if self.decoder_only else target
        noise = NOISE * torch.randn(target.shape, generator=generator)
        return self.vae.decode(latents + noise).sample, posterior.mean, posterior.logvar, target


class VaeTask:
    """The base autoencoder's training; see training/task.py. held_out: videos (1, 3, 1 + 4 n, H, W).

    First the encoder learns to give the components of blocks, and the decoder to make videos of them, each for itself;
    then, `decoder_only`, the decoder learns to take what the encoder gives. From random weights both together were at
    19 dB after 1500 steps, for neither can learn before the other; one by one they were there after 120.
    """

    frozen_is_remade = False

    def __init__(
        self,
        vae: AutoencoderKLWan,
        components: BlockComponents,
        held_out: list[Tensor],
        *,
        decoder_only: bool,
        seed: int,
    ) -> None:
        self.held_out, self.decoder_only, self.seed = held_out, decoder_only, seed
        self._modules: dict[str, nn.Module] = {"vae": VaePass(vae, components, decoder_only)}
        if decoder_only:
            for part in (vae.encoder, vae.quant_conv):
                part.requires_grad_(False)
        self._terms: dict[str, Tensor] = {}

    @property
    def vae(self) -> AutoencoderKLWan:
        network = self._modules["vae"]
        return getattr(network, "module", network).vae

    def modules(self) -> dict[str, nn.Module]:
        return dict(self._modules)

    def use_modules(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        return {"vae": list(self._modules["vae"].parameters())}

    def losses(self, batch: ClipBatch, step: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(Random(f"{self.seed} {step} {batch.first}").getrandbits(63))
        reconstruction, mean, logvar, target = self._modules["vae"](batch.videos, generator)
        self._terms = {
            "charbonnier": charbonnier(reconstruction, batch.videos, EPSILON),
            "latents": (mean - target).square().mean(),
            "width": (logvar - 2 * math.log(NOISE)).square().mean(),
            "psnr": psnr(reconstruction, batch.videos),
        }
        loss = self._terms["charbonnier"]
        if not self.decoder_only:
            loss = loss + LATENTS_WEIGHT * self._terms["latents"] + WIDTH_WEIGHT * self._terms["width"]
        return {"vae": loss}

    def terms(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self._terms.items()}

    @torch.no_grad()
    def metrics(self, folder: Path) -> dict[str, float]:
        values = [
            psnr(self.vae.decode(self.vae.encode(video).latent_dist.mode()).sample, video) for video in self.held_out
        ]
        return {"psnr": float(torch.stack(values).mean())}

    def export(self, folder: Path) -> None:
        """Writes `folder` as diffusers does, with the latents' mean and std in the configuration."""
        mean, std = self.latent_statistics()
        self.vae.register_to_config(latents_mean=mean, latents_std=std)
        with whole_folder(folder) as temporary:
            self.vae.save_pretrained(temporary)

    @torch.no_grad()
    def latent_statistics(self) -> tuple[list[float], list[float]]:
        """Per channel, over the held-out clips."""
        latents = torch.cat([self.vae.encode(video).latent_dist.mode() for video in self.held_out])
        axes = (0, 2, 3, 4)
        return latents.mean(axes).tolist(), latents.std(axes).tolist()


def psnr(reconstruction: Tensor, video: Tensor) -> Tensor:
    """In dB, for a range of 2."""
    return 10 * torch.log10(4 / squared_error(reconstruction.clamp(-1, 1), video))
