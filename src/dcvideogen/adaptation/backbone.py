"""What a family of video transformers has in common for us: its two ends, and how it is asked for a velocity.

A family states where it embeds and projects and how it is called; everything that solves, trains or exports works
through this class and knows nothing of families. The families are in backbones.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import EMBEDDER_ORDER, Patch, patchify, token_grid, unpatchify
from dcvideogen.errors import UserError

if TYPE_CHECKING:
    from dcvideogen.adaptation.positions import Positions

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Backbone:
    """One family.

    class_name: of the transformer, in diffusers. embedder, head: paths of the modules that take the latents' patches
    and give the velocity's. head_modulation: parameters of the last scale and shift, which are trained with the head.
    lora_targets: name of a set -> endings of the names of its linear layers (see lora_targets.py).
    head_order: how the numbers of one patch lie in the head's outputs. output_sign: -1 where the transformer gives
    latents - noise. first_latent: a transformer without channels for an image can be given the image's latent in place
    of a noisy one.
    """

    family: str
    class_name: str
    embedder: str
    head: str
    head_modulation: tuple[str, ...]
    lora_targets: Mapping[str, tuple[str, ...]]
    head_order: str = "cthw"
    output_sign: int = 1
    first_latent: bool = False

    # Sizes, from a transformer's config.

    def patch_size(self, config: Config) -> Patch:
        """(pt, ph, pw), in latent frames and latent pixels."""
        size = config["patch_size"]
        if isinstance(size, int):
            return (config.get("patch_size_t") or 1, size, size)
        return tuple(size)

    def input_channels(self, config: Config) -> int:
        """Channels of `model_input`."""
        return config["in_channels"]

    def latent_channels(self, config: Config) -> int:
        """Channels that are generated."""
        return config.get("out_channels") or config["in_channels"]

    def condition_channels(self, config: Config) -> int:
        """Input channels behind the latents: 0 for text to video."""
        return self.input_channels(config) - self.latent_channels(config)

    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        """The config of the same transformer in other latents. condition: with an image in its input channels.

        UserError: sizes or a condition that the family cannot have.
        """
        if latent_channels < 1 or min(patch_size) < 1:
            raise UserError(f"{latent_channels} latent channels in patches of {patch_size} came; 1 or more are allowed")
        if condition or self.condition_channels(config):
            raise UserError(
                f"image to video came for {self.family}; it is known for wan only; give a text-to-video base"
            )
        new = {name: value for name, value in config.items() if not name.startswith("_")}
        return {
            **new,
            "in_channels": latent_channels,
            "out_channels": latent_channels,
            **self._patch(config, patch_size),
        }

    def _patch(self, config: Config, patch_size: Patch) -> dict:
        """The fields of a config that say the patch."""
        if not isinstance(config["patch_size"], int):
            return {"patch_size": list(patch_size)}
        time, height, width = patch_size
        if height != width or (time != 1 and "patch_size_t" not in config):
            one = "" if "patch_size_t" in config else " of one frame"
            raise UserError(f"patches of {patch_size} came for {self.family}; it has square ones{one}")
        # None is a way of its own to say 1, with other layers.
        keep = config.get("patch_size_t", 1) is None and time == 1
        return {"patch_size": height} | ({"patch_size_t": None if keep else time} if "patch_size_t" in config else {})

    # The transformer as a function.

    def model_input(self, latents: Tensor, condition: Tensor | None) -> Tensor:
        """What the transformer takes, (B, C_in, t, h, w): the condition's channels behind the latents'."""
        return latents if condition is None else torch.cat([latents, condition.to(latents.dtype)], dim=1)

    def velocity(self, transformer: nn.Module, latents: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        """noise - latents as the transformer sees it, (B, C, t, h, w) in fp32.

        latents: the noisy ones, (B, C, t, h, w). sigma: (B,), 1 = noise. batch: gives text and conditions; its own
        latents are not looked at. Weights may be fp32 under autocast, or of any one dtype; the transformer may be in
        DistributedDataParallel.
        UserError: sizes that the patch does not divide; a condition that is missing.
        """
        config = plain(transformer).config
        inputs = self.model_input(latents, batch.condition)
        self.check_inputs(inputs, config)
        output = self.run(transformer, inputs.to(self._dtype(transformer)), sigma.float(), batch)
        return self.output_sign * output.float()

    def check_inputs(self, inputs: Tensor, config: Config) -> None:
        """UserError unless a transformer of this config takes inputs (B, C_in, t, h, w)."""
        token_grid(inputs, self.patch_size(config))
        if inputs.shape[1] != self.input_channels(config):
            raise UserError(
                f"{inputs.shape[1]} input channels came for a transformer of {self.input_channels(config)}: "
                f"{self.latent_channels(config)} of latents and {self.condition_channels(config)} of a condition; "
                "give a batch of such latents"
            )

    def run(self, transformer: nn.Module, inputs: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        """Calls the transformer by its own conventions: inputs (B, C_in, t, h, w) -> its output (B, C, t, h, w)."""
        raise NotImplementedError(self.family)

    def features(self, transformer: nn.Module, noisy: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        """What the head is given, (B, L, D): normed and modulated, tokens in the order frames, rows, columns."""
        caught = []
        hook = self.head_module(transformer).register_forward_pre_hook(lambda _, given: caught.append(given[0]))
        try:
            self.velocity(transformer, noisy, sigma, batch)
        finally:
            hook.remove()
        return caught[0].flatten(1, -2)

    # The ends as linear maps.

    def embedder_inputs(self, model_input: Tensor, config: Config) -> Tensor:
        """(B, C_in, t, h, w) -> (B, t', h', w', N): patches in the order of the columns of the embedder's weight."""
        return patchify(model_input, self.patch_size(config), EMBEDDER_ORDER)

    def embed(self, transformer: nn.Module, model_input: Tensor) -> Tensor:
        """The embedder's output before positions, (B, t', h', w', D), in the dtype of its weights."""
        module = self.embedder_module(transformer)
        model_input = model_input.to(module.weight.dtype)
        kinds = {5: self._embed_volumes, 4: self._embed_frames, 2: self._embed_tokens}
        return kinds[module.weight.ndim](module, model_input, plain(transformer).config)

    def _embed_volumes(self, module: nn.Module, model_input: Tensor, config: Config) -> Tensor:
        token_grid(model_input, self.patch_size(config))
        return module(model_input).movedim(1, -1)

    def _embed_frames(self, module: nn.Module, model_input: Tensor, config: Config) -> Tensor:
        token_grid(model_input, self.patch_size(config))
        frames = model_input.transpose(1, 2)
        return module(frames.flatten(0, 1)).unflatten(0, frames.shape[:2]).movedim(2, -1)

    def _embed_tokens(self, module: nn.Module, model_input: Tensor, config: Config) -> Tensor:
        return module(self.embedder_inputs(model_input, config))

    def head_targets(self, velocity: Tensor, config: Config) -> Tensor:
        """What the head should say for a velocity (B, C, t, h, w): (B, L, C*pt*ph*pw), in the order of its outputs."""
        return patchify(self.output_sign * velocity, self.patch_size(config), self.head_order).flatten(1, 3)

    def head_velocity(self, outputs: Tensor, grid: tuple[int, int, int], config: Config) -> Tensor:
        """The inverse: the head's outputs (B, L, ...) on a token grid (t', h', w') -> velocity (B, C, t, h, w)."""
        return self.output_sign * unpatchify(outputs.unflatten(1, grid), self.patch_size(config), self.head_order)

    def embedder_weight(self, transformer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight (D, N) and bias (D,); None where the family's embedder has no bias."""
        return _matrix(self.embedder_module(transformer))

    def set_embedder(self, transformer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
        """Writes the embedder. bias: None for a family without one, and only there."""
        _write(self.embedder_module(transformer), weight, bias, f"the embedder of {self.family}")

    def head_weight(self, transformer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """Weight (C*pt*ph*pw, D) and bias (C*pt*ph*pw,); None where the family's head has no bias."""
        return _matrix(self.head_module(transformer))

    def set_head(self, transformer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
        """Writes the head. bias: None for a family without one, and only there."""
        _write(self.head_module(transformer), weight, bias, f"the head of {self.family}")

    def embedder_module(self, transformer: nn.Module) -> nn.Module:
        return plain(transformer).get_submodule(self.embedder)

    def head_module(self, transformer: nn.Module) -> nn.Module:
        return plain(transformer).get_submodule(self.head)

    def place_positions(self, transformer: nn.Module, positions: Positions, ratio: tuple[float, float, float]) -> None:
        """Makes the transformer count its tokens' positions so; see positions.py, which users call."""
        if positions != "integer":
            raise UserError(f"positions {positions!r} came for {self.family}; integer is allowed for this family")

    def _dtype(self, transformer: nn.Module) -> torch.dtype:
        return self.embedder_module(transformer).weight.dtype


def plain(transformer: nn.Module) -> nn.Module:
    """The transformer in DistributedDataParallel, which is called from outside and looked at inside."""
    return transformer.module if isinstance(transformer, nn.parallel.DistributedDataParallel) else transformer


def text_mask(batch: LatentBatch) -> Tensor:
    """The batch's (B, L) mask with the first token always seen: families that average over the text would divide an
    empty one by zero."""
    return batch.prompt_mask | (torch.arange(batch.prompt_mask.shape[1], device=batch.prompt_mask.device) == 0)


def _matrix(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    return module.weight.detach().flatten(1), None if module.bias is None else module.bias.detach()


@torch.no_grad()
def _write(module: nn.Module, weight: Tensor, bias: Tensor | None, what: str) -> None:
    if (bias is None) != (module.bias is None):
        raise ValueError(f"{what} has {'no' if module.bias is None else 'a'} bias; what came has one less or more")
    if weight.shape != module.weight.flatten(1).shape:
        raise ValueError(f"{what} is {tuple(module.weight.flatten(1).shape)}; {tuple(weight.shape)} came")
    module.weight.copy_(weight.reshape(module.weight.shape))
    if bias is not None:
        module.bias.copy_(bias)
