"""The networks of a pipeline without their weights, and what each of them takes: weights, activations, operations."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dcvideogen.adaptation.on_meta import transformer_on_meta
from dcvideogen.adaptation.transformer_cost import block_lists, cost_of
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.conditioning import ImageCondition
from dcvideogen.pipelines.memory_trace import peak_bytes
from dcvideogen.pipelines.memory_work import Work, count_work


@dataclass(frozen=True)
class Asked:
    """The videos that are asked for. steps: denoising steps; guided: with a negative prompt; videos: made together;
    text_tokens: what a prompt is padded to. images: that are given, where the model takes any; condition: how the
    latents of the first are made (`conditioning.condition_latents`). window_frames: of the windows that a longer video
    is denoised in, one after the other (`long_video`); None: all at once."""

    height: int
    width: int
    num_frames: int
    steps: int = 50
    guided: bool = True
    videos: int = 1
    text_tokens: int = 512
    images: int = 1
    condition: ImageCondition = "zeros"
    window_frames: int | None = None


@dataclass(frozen=True)
class Networks:
    """All on the meta device, in the dtypes that they will have. transformers: one, or two for parts of the noise
    levels. image_encoder: CLIP's, where the transformers are shown its tokens. first_latent: transformers without
    channels for an image take its latent in place of their first one, where an image is given. Made by `networks_of`
    from a pipeline's parts, or by `networks_from_configs`."""

    text_encoder: nn.Module | None
    transformers: tuple[nn.Module, ...]
    autoencoder: AutoencoderDCV
    image_encoder: nn.Module | None = None
    first_latent: bool = False

    def encodes_image(self, asked: Asked) -> bool:
        """Whether an image goes through the autoencoder."""
        config = self.transformers[0].config
        return config.in_channels > config.out_channels or (self.first_latent and asked.images > 0)

    @property
    def width(self) -> int:
        """Of the transformer's widest linear layers' input."""
        config = self.transformers[0].config
        return config.num_attention_heads * config.attention_head_dim

    @functools.cached_property
    def weights(self) -> dict[str, int]:
        """Bytes by component."""
        parts = {"text encoder": self.text_encoder, "autoencoder": self.autoencoder}
        parts["image encoder"] = self.image_encoder
        parts |= {f"transformer {number}": one for number, one in enumerate(self.transformers, start=1)}
        return {name: bytes_of(network) for name, network in parts.items() if network is not None}

    @functools.cached_property
    def block_bytes(self) -> int:
        """Of the largest of a transformer's blocks."""
        return max(bytes_of(block) for one in self.transformers for blocks in block_lists(one) for block in blocks)

    @functools.cached_property
    def blocks_bytes(self) -> int:
        """Of all blocks of one transformer."""
        return sum(bytes_of(block) for blocks in block_lists(self.transformers[0]) for block in blocks)

    def text_activations(self, asked: Asked) -> int:
        """Bytes, while the prompt and the negative one are encoded in one batch."""
        if self.text_encoder is None:
            return 0
        return peak_bytes([self.text_encoder, *self.text_encoder.children()], lambda: self._read(asked))

    def text_work(self, asked: Asked) -> Work:
        """Of the same. Operations: two per weight of the blocks and token; attention among 512 tokens is 2 % of it."""
        if self.text_encoder is None:
            return Work()
        weights = sum(parameter.numel() for parameter in self.text_encoder.encoder.block.parameters())
        flops = 2.0 * weights * asked.text_tokens * (2 if asked.guided else 1)
        return count_work([self.text_encoder, *self.text_encoder.children()], lambda: self._read(asked), flops)

    def _read(self, asked: Asked) -> torch.Tensor:
        ids = torch.empty(2 if asked.guided else 1, asked.text_tokens, dtype=torch.long, device="meta")
        return self.text_encoder(ids).last_hidden_state.float()

    def image_activations(self, asked: Asked) -> int:
        """Bytes, while CLIP looks at the images: it gives out what all its layers made."""
        if self.image_encoder is None:
            return 0
        return peak_bytes([self.image_encoder], lambda: self._look(asked))

    def image_work(self, asked: Asked) -> Work:
        """Of the same. Operations: two per weight and token."""
        if self.image_encoder is None:
            return Work()
        weights = sum(parameter.numel() for parameter in self.image_encoder.parameters())
        flops = 2.0 * weights * self.image_tokens * asked.images
        return count_work([self.image_encoder], lambda: self._look(asked), flops)

    def _look(self, asked: Asked) -> torch.Tensor:
        config, side = self.image_encoder.config, self.image_encoder.config.image_size
        dtype = self.image_encoder.dtype
        pixels = torch.empty(asked.images, config.num_channels, side, side, dtype=dtype, device="meta")
        return self.image_encoder(pixels, output_hidden_states=True).hidden_states[-2]

    @property
    def image_tokens(self) -> int:
        """Of one image: a token for each patch, and one for the class."""
        config = self.image_encoder.config
        return (config.image_size // config.patch_size) ** 2 + 1

    def latent_shape(self, asked: Asked) -> tuple[int, int, int]:
        """(t, h, w): whole patches of the transformer that hold the video."""
        grid = self.autoencoder.geometry.latent_shape(asked.num_frames, asked.height, asked.width)
        patch = self.transformers[0].config.patch_size
        return tuple(-(-size // step) * step for size, step in zip(grid, patch, strict=True))

    def transformer_activations(self, asked: Asked, batch: int) -> int:
        """Bytes at the peak of one forward pass of `batch` videos, its inputs and its output included."""
        return max(peak_bytes([one], lambda one=one: self._forward(one, asked, batch)) for one in self.transformers)

    def transformer_work(self, asked: Asked) -> Work:
        """Of one forward pass of one video."""
        one = self.transformers[0]
        flops = cost_of(one, lambda one: self._forward(one, asked, 1)).forward
        return count_work([one], lambda: self._forward(one, asked, 1), flops)

    def _forward(self, transformer: nn.Module, asked: Asked, batch: int) -> torch.Tensor:
        config, dtype = transformer.config, transformer.dtype
        with torch.device("meta"):
            image = None
            if config.image_dim is not None:
                image = torch.empty(batch, asked.images * self.image_tokens, config.image_dim, dtype=dtype)
            velocity = transformer(
                hidden_states=torch.empty(batch, config.in_channels, *self.latent_shape(asked), dtype=dtype),
                timestep=torch.empty(batch),
                encoder_hidden_states=torch.empty(batch, asked.text_tokens, config.text_dim, dtype=dtype),
                encoder_hidden_states_image=image,
                return_dict=False,
            )[0]
        return velocity.float()


def networks_of(
    text_encoder: nn.Module | None,
    transformers: Sequence[nn.Module],
    autoencoder: AutoencoderDCV,
    image_encoder: nn.Module | None = None,
) -> Networks:
    """Of a pipeline's parts: copies without weights, in the parts' dtypes."""
    return networks_from_configs(
        None if text_encoder is None else text_encoder.config.to_dict(),
        [{**one.config, "_class_name": type(one).__name__} for one in transformers],
        dict(autoencoder.config),
        dtype=transformers[0].dtype,
        text_dtype=None if text_encoder is None else text_encoder.dtype,
        autoencoder_dtype=autoencoder.dtype,
        image_encoder=None if image_encoder is None else image_encoder.config.to_dict(),
        image_dtype=None if image_encoder is None else image_encoder.dtype,
    )


def networks_from_configs(
    text_encoder: Mapping[str, Any] | None,
    transformers: Sequence[Mapping[str, Any]],
    autoencoder: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    text_dtype: torch.dtype | None = None,
    autoencoder_dtype: torch.dtype | None = None,
    image_encoder: Mapping[str, Any] | None = None,
    image_dtype: torch.dtype | None = None,
) -> Networks:
    """Of the contents of their config.json. dtype: of all weights, where no other is given for a part."""
    text = image = None
    if text_encoder is not None:
        from transformers import UMT5Config, UMT5EncoderModel

        with torch.device("meta"):
            text = UMT5EncoderModel(UMT5Config(**text_encoder)).eval()
        text = nn.Module.to(text, text_dtype or dtype)
    if image_encoder is not None:
        from transformers import CLIPVisionConfig, CLIPVisionModel

        with torch.device("meta"):
            image = CLIPVisionModel(CLIPVisionConfig(**image_encoder)).eval()
        image = nn.Module.to(image, image_dtype or dtype)
    with torch.device("meta"):
        decoder = AutoencoderDCV.from_config(dict(autoencoder))
    return Networks(
        text,
        tuple(_in_dtype(transformer_on_meta(config), dtype).requires_grad_(False) for config in transformers),
        nn.Module.to(decoder, autoencoder_dtype or dtype).eval(),
        image,
    )


def bytes_of(network: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _in_dtype(transformer: nn.Module, dtype: torch.dtype) -> nn.Module:
    """As from_pretrained does it: some modules stay in fp32."""
    kept = set(getattr(transformer, "_keep_in_fp32_modules", None) or ())
    for name, parameter in transformer.named_parameters():
        if not kept & set(name.split(".")):
            parameter.data = parameter.data.to(dtype)
    return transformer
