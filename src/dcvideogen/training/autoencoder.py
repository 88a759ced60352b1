"""The task of training an autoencoder: reconstruct, and if wanted deceive a discriminator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.data.batch import ClipBatch
from dcvideogen.errors import UserError
from dcvideogen.evaluation.lpips import Lpips, load_lpips
from dcvideogen.training import losses
from dcvideogen.training.adversarial import (
    adaptive_weight,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
    value_and_gradient,
    with_gradient,
)
from dcvideogen.training.autoencoder_export import export_autoencoder
from dcvideogen.training.autoencoder_pass import AutoencoderPass, Reconstruction, last_conv
from dcvideogen.training.discriminator import PatchDiscriminator
from dcvideogen.training.loss_settings import LossSettings
from dcvideogen.training.parts import choose_trainable
from dcvideogen.training.validation import validate

FRAMES_PER_LPIPS_CALL = 16


class ReconstructionTask:
    """Encoder and decoder together, trained to give back what they were shown.

    model: is changed in place. sample: videos (B, 3, T, H, W) from the training clips, to measure the latents' mean
    and std on. held_out: named videos (1, 3, T, H, W) in [-1, 1] to measure on.
    trainable: what is trained, see `parts.choose_trainable`; all else stays as it is.
    past_gradient: let gradients flow through the frames kept between chunks.
    seed: of all that is random here: posterior samples, latent noise, the discriminator's first weights.
    """

    frozen_is_remade = False

    def __init__(
        self,
        model: AutoencoderDCV,
        *,
        sample: Tensor,
        held_out: Mapping[str, Tensor],
        loss: LossSettings | None = None,
        trainable: Sequence[str] = ("*",),
        past_gradient: bool = True,
        seed: int = 0,
    ) -> None:
        self.loss = loss or LossSettings()
        self.seed, self.sample, self.held_out = seed, sample, held_out
        choose_trainable(model, trainable)
        check_losses(self.loss, model)
        autoencoder = AutoencoderPass(model, past_gradient=past_gradient, latent_noise=self.loss.latent_noise)
        self._modules: dict[str, nn.Module] = {"autoencoder": autoencoder}
        if self.loss.gan is not None:
            if self.loss.gan.adaptive:
                autoencoder.note_last_weight()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                discriminator = PatchDiscriminator(self.loss.gan.channels, self.loss.gan.regulariser)
            self._modules["discriminator"] = discriminator
        self.lpips: Lpips | None = None
        if self.loss.lpips is not None:
            self.lpips = load_lpips(self.loss.lpips.network, self.loss.lpips.backbone, self.loss.lpips.heads)
        self._terms: dict[str, Tensor] = {}

    def modules(self) -> dict[str, nn.Module]:
        return dict(self._modules)

    def use_modules(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = dict(modules)

    @property
    def _autoencoder(self) -> AutoencoderPass:
        """Under whatever the loop has wrapped around it."""
        network = self._modules["autoencoder"]
        return getattr(network, "module", network)

    @property
    def model(self) -> AutoencoderDCV:
        return self._autoencoder.model

    def parameters(self) -> dict[str, list[nn.Parameter]]:
        return {name: list(module.parameters()) for name, module in self._modules.items()}

    def losses(self, batch: ClipBatch, step: int) -> dict[str, Tensor]:
        """The autoencoder's loss and, from its start on, the discriminator's, in fp32."""
        video = batch.videos
        seeds = [(self.seed, step, batch.first + index) for index in range(len(video))]
        result: Reconstruction = self._modules["autoencoder"](video, batch.chunk_frames, seeds)
        self._terms = {}
        with torch.autocast(video.device.type, enabled=False):
            reconstruction = result.video.float()
            total = self._reconstruction_loss(reconstruction, video)
            if self.loss.kl:
                total = total + self.loss.kl * self._note("kl", losses.kl_divergence(result.mean, result.logvar))
            if self.loss.gan is None or step < self.loss.gan.start:
                return {"autoencoder": total}
            total = total + self._adversarial_loss(reconstruction, total)
            return {"autoencoder": total, "discriminator": self._discriminator_loss(reconstruction.detach(), video)}

    def terms(self) -> dict[str, Tensor]:
        """The terms of the last losses, before their weights."""
        return {name: value.detach() for name, value in self._terms.items()}

    def metrics(self, folder: Path) -> dict[str, float]:
        """See `validation.validate`."""
        return validate(self.model, self.held_out, folder)

    def export(self, folder: Path) -> None:
        """Writes a fp16 model folder, without the discriminator; see `autoencoder_export.export_autoencoder`."""
        export_autoencoder(self.model, self.sample, folder)

    def _reconstruction_loss(self, reconstruction: Tensor, video: Tensor) -> Tensor:
        loss = self.loss
        total = reconstruction.new_zeros(())
        if loss.mse:
            total = total + loss.mse * self._note("mse", losses.squared_error(reconstruction, video))
        if loss.charbonnier:
            value = losses.charbonnier(reconstruction, video, loss.epsilon)
            total = total + loss.charbonnier * self._note("charbonnier", value)
        if loss.gradient:
            total = total + loss.gradient * self._note("gradient", losses.gradient_loss(reconstruction, video))
        if loss.temporal:
            total = total + loss.temporal * self._note("temporal", losses.temporal_loss(reconstruction, video))
        if loss.ms_ssim:
            total = total + loss.ms_ssim * self._note("ms_ssim", losses.ms_ssim_loss(reconstruction, video))
        if loss.lpips is not None:
            total = total + loss.lpips.weight * self._note("lpips", self._perceptual_loss(reconstruction, video))
        return total

    def _perceptual_loss(self, reconstruction: Tensor, video: Tensor) -> Tensor:
        """The mean over all frames, a few at a time: nothing is kept of the features of frames that are done."""
        self.lpips = self.lpips.to(video.device)
        pairs = (
            frames.transpose(1, 2).flatten(0, 1).split(FRAMES_PER_LPIPS_CALL) for frames in (reconstruction, video)
        )
        distances = [
            torch.utils.checkpoint.checkpoint(self.lpips, *pair, use_reentrant=False)
            for pair in zip(*pairs, strict=True)
        ]
        return torch.cat(distances).mean()

    def _adversarial_loss(self, reconstruction: Tensor, reconstruction_loss: Tensor) -> Tensor:
        """Weight and value of the generator's side, with a gradient to the reconstruction alone."""
        gan = self.loss.gan
        discriminator = self._modules["discriminator"]
        value, gradient = value_and_gradient(lambda x: hinge_generator_loss(discriminator(x)), reconstruction)
        weight = reconstruction.new_tensor(gan.weight)
        if gan.adaptive:
            last = self._autoencoder.used["last_weight"]
            (wanted,) = torch.autograd.grad(reconstruction_loss, last, retain_graph=True)
            (adversarial,) = torch.autograd.grad(reconstruction, last, gradient, retain_graph=True)
            if distributed.is_initialized():  # the gradients of the whole batch, times the number of processes
                distributed.all_reduce(wanted)
                distributed.all_reduce(adversarial)
            weight = weight * adaptive_weight(wanted, adversarial)
        self._note("gan", value)
        self._note("gan_weight", weight)
        return with_gradient(weight * value, reconstruction, weight * gradient)

    def _discriminator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        gan = self.loss.gan
        real = real.detach().requires_grad_(gan.regulariser == "r1")
        real_scores, fake_scores = self._modules["discriminator"](torch.cat([real, fake])).chunk(2)
        self._note("score_real", real_scores.mean())
        self._note("score_fake", fake_scores.mean())
        loss = hinge_discriminator_loss(real_scores, fake_scores)
        if gan.regulariser == "r1":
            loss = loss + gan.r1 * self._note("r1", r1_penalty(real_scores, real))
        return loss

    def _note(self, name: str, value: Tensor) -> Tensor:
        self._terms[name] = value
        return value


def check_losses(loss: LossSettings, model: AutoencoderDCV) -> None:
    """Raises UserError for terms that this model, or what is trained of it, cannot have."""
    if loss.kl and model.config.posterior != "gaussian":
        raise UserError(
            f"loss.kl is {loss.kl}, but the model's posterior is {model.config.posterior}; set start.posterior to "
            "gaussian, or loss.kl to 0"
        )
    if loss.gan is not None and loss.gan.adaptive and not last_conv(model).weight.requires_grad:
        raise UserError(
            "loss.gan.adaptive looks at the gradient of the decoder's last layer, which is not trained; add "
            "decoder_last to trainable, or set loss.gan.adaptive to false"
        )
