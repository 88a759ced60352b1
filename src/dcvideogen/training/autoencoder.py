"""The task of training an autoencoder to reconstruct."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError


def charbonnier(reconstruction: Tensor, video: Tensor, epsilon: float) -> Tensor:
    """mean(sqrt(d^2 + epsilon^2) - epsilon): like d^2 / (2 epsilon) below epsilon, like |d| above it."""
    difference = reconstruction.float() - video
    return ((difference.square() + epsilon**2).sqrt() - epsilon).mean()


def gradient_loss(reconstruction: Tensor, video: Tensor) -> Tensor:
    """Mean absolute difference of the differences between neighbours along rows and columns: keeps edges sharp."""
    difference = reconstruction.float() - video
    return difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()


def psnr(reconstruction: Tensor, video: Tensor) -> float:
    """dB over 8-bit values, per frame, then averaged (frames that agree exactly count as 100 dB)."""
    levels = [((x.float().clamp(-1, 1) + 1) * 127.5).round() for x in (reconstruction, video)]
    error = (levels[0] - levels[1]).square().mean(dim=(0, 1, 3, 4)).clamp(min=255**2 * 1e-10)
    return float((10 * torch.log10(255**2 / error)).mean())


class ReconstructionTask:
    """Encoder and decoder together, trained to give back what they were shown.

    mse_weight, charbonnier_weight, gradient_weight: shares of the loss; a term of weight 0 is not computed.
    epsilon: where the Charbonnier term turns from square to absolute.
    held_out: named videos (1, 3, T, H, W) in [-1, 1] to measure on.
    sample: videos (B, 3, T, H, W) from the training clips, to measure the latents' mean and std on.
    trainable: patterns of the names of parameters that are trained; all others stay as they are.
    """

    def __init__(
        self,
        model: AutoencoderDCV,
        *,
        sample: Tensor,
        held_out: dict[str, Tensor],
        trainable: Sequence[str] = ("*",),
        mse_weight: float = 1.0,
        charbonnier_weight: float = 0.0,
        gradient_weight: float = 0.0,
        epsilon: float = 0.02,
    ) -> None:
        self.model = model
        keep_full_precision(model)
        choose_trainable(model, trainable)
        self.sample, self.held_out = sample, held_out
        self.mse_weight, self.charbonnier_weight = mse_weight, charbonnier_weight
        self.gradient_weight, self.epsilon = gradient_weight, epsilon

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        return {"autoencoder": list(self.model.parameters())}

    def losses(self, batch: tuple[Tensor, int]) -> dict[str, Tensor]:
        """batch: videos (B, 3, T, H, W), and the chunk length to run them with."""
        video, chunk_frames = batch
        video = video.to(self.model.device)
        with chunk_length(self.model, chunk_frames):
            reconstruction = self.model(video)
        total = video.new_zeros(())
        if self.mse_weight:
            total = total + self.mse_weight * (reconstruction.float() - video).square().mean()
        if self.charbonnier_weight:
            total = total + self.charbonnier_weight * charbonnier(reconstruction, video, self.epsilon)
        if self.gradient_weight:
            total = total + self.gradient_weight * gradient_loss(reconstruction, video)
        return {"autoencoder": total}

    @torch.no_grad()
    def metrics(self) -> dict[str, float]:
        """PSNR in dB of each held-out video, and their mean."""
        values = {f"psnr/{name}": psnr(self._reconstruct(video), video) for name, video in self.held_out.items()}
        return {"psnr": sum(values.values()) / len(values), **values} if values else {}

    def export(self, folder: Path) -> None:
        """Writes a fp16 model folder.

        An encoder that is not trained keeps its latent space, by name too. Otherwise the space is a new one, whose
        latents have mean 0 and std 1 per channel on the training clips.
        """
        fields = {name: value for name, value in self.model.config.items() if not name.startswith("_")}
        kept = not any(p.requires_grad for p in self.model.encoder.parameters()) and fields["latent_space_id"]
        if not kept:
            fields["latents_mean"], fields["latents_std"] = self._latent_statistics()
        model = AutoencoderDCV(**fields)
        model.load_state_dict(self.model.state_dict())
        model = model.half()
        if not kept:
            model.register_to_config(latent_space_id=model.fingerprint())
        temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        model.save_pretrained(temporary)
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)

    def _reconstruct(self, video: Tensor) -> Tensor:
        return self.model(video.to(self.model.device)).cpu()

    @torch.no_grad()
    def _latent_statistics(self) -> tuple[list[float], list[float]]:
        latents = torch.cat([self.model.encode(clip[None].to(self.model.device)) for clip in self.sample])
        std, mean = torch.std_mean(latents.float(), dim=(0, 2, 3, 4))
        own_mean, own_std = (torch.tensor(self.model.config[name]) for name in ("latents_mean", "latents_std"))
        mean, std = own_mean + own_std * mean.cpu(), own_std * std.cpu()
        # Four digits: the numbers are part of config.json, and a channel that is never used must not blow up.
        return [round(v, 4) for v in mean.tolist()], [max(round(v, 4), 1e-3) for v in std.tolist()]


def start_from_folder(folder: Path) -> AutoencoderDCV:
    """An exported model as fp32 weights to train on."""
    return AutoencoderDCV.from_pretrained(folder, torch_dtype=torch.float32).train()


def choose_trainable(model: nn.Module, patterns: Sequence[str]) -> None:
    """Only parameters whose name fits one of the patterns (as in a shell) get gradients."""
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(f"no parameter is named like {pattern!r}; there are {', '.join(names[:3])}, ...")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))


def keep_full_precision(model: AutoencoderDCV) -> None:
    """Makes the layers at latent rate and the decoder's head compute in fp32 under autocast.

    At latent rate a crop has so few positions (2x4x4) that the CPU's bf16 conv3d gave infinite weight gradients
    (torch 2.13); the head's last sum needs more than eight bits.
    """
    latent_rate = [model.encoder.layers[-1], *model.decoder.layers[:2]]
    for layer in (*latent_rate, model.decoder.layers[-1]):
        layer.forward = functools.partial(in_full_precision, type(layer).forward, layer)


def in_full_precision(forward: Callable[..., Tensor], layer: nn.Module, x: Tensor, *rest: Any) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return forward(layer, x.float(), *rest)


@contextmanager
def chunk_length(model: AutoencoderDCV, chunk_frames: int) -> Iterator[None]:
    """Runs the model with another chunk length: short clips then cross a chunk's edge too."""
    own = model.geometry
    model.geometry = dataclasses.replace(own, chunk_frames=chunk_frames)
    try:
        yield
    finally:
        model.geometry = own
