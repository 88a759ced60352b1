"""The one task of all stages that train a transformer by gradient: its velocity against noise - latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dcvideogen.adaptation.adapter_folder import AdapterRecord, ends_of, write_adapter
from dcvideogen.adaptation.backbone import Backbone, plain
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.folder import AdaptationInfo, save_transformer
from dcvideogen.adaptation.lora import lora_of, lora_settings_of
from dcvideogen.conditioning import FirstLatent, with_given
from dcvideogen.errors import UserError
from dcvideogen.flow import add_noise, sample_sigma, velocity_target

# Noise levels of the held-out loss: the middles of four equal parts, so that it can be compared between shifts.
HELD_OUT_SIGMAS = (0.125, 0.375, 0.625, 0.875)
# Draws on held-out clips come from another seed than those of training.
HELD_OUT = 2**32 - 1


class FlowTask:
    """See training/task.py. transformer: is changed in place, and stays `Task.modules()["transformer"]`.

    null_prompt: embeds (L, D) and mask (L,) in place of a dropped text. held_out: batches to measure on.
    trainable: patterns (as in a shell) of the names of parameters that are trained; all else stays as it is, in its
    dtype. info: what `export` writes with the weights; without it and without `save` nothing is exported.
    save: writes a transformer without LoRA layers instead. first_latent: see `AdaptationInfo`.
    seed: with the step and the clip's place in it, of all that is random here: the same on any number of processes and
    devices.
    """

    # What is not trained comes from the base or the stage before.
    frozen_is_remade = True

    def __init__(
        self,
        transformer: nn.Module,
        backbone: Backbone,
        *,
        null_prompt: tuple[Tensor, Tensor],
        held_out: Sequence[LatentBatch],
        flow: FlowSettings,
        trainable: Sequence[str],
        info: AdaptationInfo | None,
        seed: int,
        save: Callable[[nn.Module, Path], None] | None = None,
        first_latent: FirstLatent = "generated",
    ) -> None:
        self.backbone, self.null_prompt, self.held_out, self.flow = backbone, null_prompt, held_out, flow
        self.info, self.seed, self.save, self.first_latent = info, seed, save, first_latent
        choose_trainable(transformer, trainable)
        self._modules: dict[str, nn.Module] = {"transformer": transformer}

    def modules(self) -> dict[str, nn.Module]:
        return dict(self._modules)

    def use_modules(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)

    @property
    def transformer(self) -> nn.Module:
        """Under whatever the loop has wrapped around it."""
        return plain(self._modules["transformer"])

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        return {"transformer": list(self._modules["transformer"].parameters())}

    def losses(self, batch: LatentBatch, step: int) -> dict[str, Tensor]:
        """mean (velocity - (noise - latents))^2 over all numbers of all clips."""
        draws = [ClipDraw(self.seed, step, batch.first + index) for index in range(len(batch.latents))]
        sigma = torch.cat([draw.sigma(self.flow) for draw in draws])
        drop_text = torch.tensor([draw.share() < self.flow.text_dropout for draw in draws])
        drop_image = torch.tensor([draw.share() < self.flow.image_dropout for draw in draws])
        noise = torch.stack([draw.noise(batch.latents.shape[1:]) for draw in draws])
        batch = without_image(without_text(batch, drop_text, self.null_prompt), drop_image)
        return {"transformer": self._loss(batch, noise, sigma).mean()}

    def terms(self) -> dict[str, Tensor]:
        return {}

    def _loss(self, batch: LatentBatch, noise: Tensor, sigma: Tensor) -> Tensor:
        """(B,): of each clip, in fp32."""
        device = batch.latents.device
        noise, sigma = noise.to(device), sigma.to(device)
        noisy = add_noise(batch.latents, noise, sigma)
        if self.first_latent == "given" and batch.condition is not None:
            noisy = with_given(noisy, batch.condition)
        velocity = self.backbone.velocity(self._modules["transformer"], noisy, sigma, batch)
        with torch.autocast(device.type, enabled=False):
            error = (velocity.float() - velocity_target(batch.latents, noise)).square()
            asked = self._asked(batch)
            return (error * asked).flatten(1).mean(1) / asked.flatten(1).mean(1)

    def _asked(self, batch: LatentBatch) -> Tensor:
        """(B, 1, t, h, w), 0 where the answer means nothing: clean latents are in place of the noisy ones, because they
        are given, or because the transformer has no channels for its condition (Wan 2.2 5B's first latent)."""
        generated = self.first_latent == "generated" and self.backbone.condition_channels(self.transformer.config)
        if batch.condition is None or generated:
            return torch.ones_like(batch.latents[:, :1])
        return 1 - batch.condition[:, :1].float()

    @torch.no_grad()
    def metrics(self, folder: Path) -> dict[str, float]:
        """The loss on the held-out clips, text and image given, at HELD_OUT_SIGMAS and fixed noise; no pictures."""
        low, high = self.flow.sigma_range
        values: dict[float, list[Tensor]] = {}
        training, device = self.transformer.training, next(self.transformer.parameters()).device
        # Trained weights in fp32 among frozen ones in bf16 run together under autocast alone.
        mixed = any(parameter.dtype == torch.bfloat16 for parameter in self.transformer.parameters())
        self.transformer.eval()
        for number, batch in enumerate(self.held_out):
            batch = batch.to(device)
            draws = [ClipDraw(HELD_OUT, number, index) for index in range(len(batch.latents))]
            noise = torch.stack([draw.noise(batch.latents.shape[1:]) for draw in draws])
            for place in HELD_OUT_SIGMAS:
                sigma = low + (high - low) * place
                with torch.autocast(device.type, dtype=torch.bfloat16, enabled=mixed):
                    losses = self._loss(batch, noise, torch.full((len(noise),), sigma))
                values.setdefault(sigma, []).append(losses)
        self.transformer.train(training)
        bands = {f"loss_at_{sigma:.3g}": float(torch.cat(losses).mean()) for sigma, losses in values.items()}
        return {"loss": sum(bands.values()) / len(bands), **bands} if bands else {}

    def export(self, folder: Path) -> None:
        """An adapter (LoRA and both ends, fp32) where there are LoRA layers, the transformer where there are none."""
        transformer = self.transformer
        if self.save is not None:
            self.save(transformer, folder)
        elif self.info is not None and hasattr(transformer, "peft_config"):
            lora = lora_settings_of(transformer, self.backbone)
            patch = self.backbone.patch_size(transformer.config)
            record = AdapterRecord(adaptation=self.info, patch_size=patch, lora=lora)
            ends = ends_of(transformer, self.backbone)
            write_adapter(folder, transformer, record, lora_of(transformer), ends, torch.float32)
        elif self.info is not None:
            save_transformer(transformer, folder, self.info)


class ClipDraw:
    """Random numbers of one clip of one step, on the CPU: the same on every device and however a batch is cut."""

    def __init__(self, seed: int, step: int, index: int) -> None:
        words = np.random.SeedSequence([seed, step, index]).generate_state(2)
        self.generator = torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def sigma(self, flow: FlowSettings) -> Tensor:
        return sample_sigma(
            1,
            distribution=flow.distribution,
            shift=flow.shift,
            sigma_range=flow.sigma_range,
            generator=self.generator,
        )

    def share(self) -> float:
        return float(torch.rand((), generator=self.generator))

    def noise(self, shape: Sequence[int]) -> Tensor:
        return torch.randn(tuple(shape), generator=self.generator)


def without_text(batch: LatentBatch, drop: Tensor, null_prompt: tuple[Tensor, Tensor]) -> LatentBatch:
    """The null prompt where drop (B,) is True."""
    device = batch.prompt_embeds.device
    drop, embeds, mask = drop.to(device), null_prompt[0].to(batch.prompt_embeds), null_prompt[1].to(device)
    pooled = batch.pooled_embeds
    return replace(
        batch,
        prompt_embeds=torch.where(drop[:, None, None], embeds, batch.prompt_embeds),
        prompt_mask=torch.where(drop[:, None], mask, batch.prompt_mask),
        pooled_embeds=None if pooled is None else torch.where(drop[:, None], torch.zeros_like(pooled), pooled),
    )


def without_image(batch: LatentBatch, drop: Tensor) -> LatentBatch:
    """Zeros for condition and image tokens where drop (B,) is True."""
    keep = ~drop.to(batch.latents.device)
    condition, image = batch.condition, batch.image_embeds
    return replace(
        batch,
        condition=None if condition is None else condition * keep[:, None, None, None, None],
        image_embeds=None if image is None else image * keep[:, None, None],
    )


def choose_trainable(transformer: nn.Module, patterns: Sequence[str]) -> None:
    """Only what is named gets gradients, and is fp32 then; UserError for a pattern that fits nothing."""
    names = [name for name, _ in transformer.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UserError(
                f"trainable: no parameter is named like {pattern!r}; names: {', '.join(names[:2])}, ..., {names[-1]}"
            )
    for name, parameter in transformer.named_parameters():
        trained = any(fnmatchcase(name, pattern) for pattern in patterns)
        parameter.requires_grad_(trained)
        if trained:
            parameter.data = parameter.data.float()
