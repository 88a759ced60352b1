"""The networks of a pipeline without their weights, and what each of them takes: weights, activations, operations."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dcvideogen.adaptation.on_meta import transformer_on_meta
from dcvideogen.adaptation.transformer_cost import block_lists, cost_of
from dcvideogen.adaptation.wan_configs import WAN_CONFIGS
from dcvideogen.autoencoder.cost import conv_flops
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.autoencoder.presets import PRESETS, check_preset
from dcvideogen.conditioning import MASK_CHANNELS
from dcvideogen.errors import UserError
from dcvideogen.pipelines.memory_trace import peak_bytes

# google/umt5-xxl, the text encoder of all Wan models: its encoder alone has 5.68 B parameters.
UMT5_XXL: dict[str, Any] = {
    "model_type": "umt5", "d_model": 4096, "d_ff": 10240, "d_kv": 64, "num_heads": 64, "num_layers": 24,
    "vocab_size": 256384, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
}  # fmt: skip
# CLIP ViT-H/14's image tower, whose tokens Wan 2.1's image-to-video models are shown.
IMAGE_TOKENS, CLIP_PARAMETERS = 257, 632_000_000


@dataclass(frozen=True)
class Asked:
    """The videos that are asked for. steps: denoising steps; guided: with a negative prompt; videos: made together;
    text_tokens: what a prompt is padded to."""

    height: int
    width: int
    num_frames: int
    steps: int = 50
    guided: bool = True
    videos: int = 1
    text_tokens: int = 512


@dataclass(frozen=True)
class Networks:
    """All on the meta device, in the dtypes that they will have. transformers: one, or two for parts of the noise
    levels. image_encoder_bytes: of CLIP's weights; it runs on one image, so the rest is nothing. Made by `networks_of`
    from a pipeline's parts, or by `networks_from_configs`."""

    text_encoder: nn.Module | None
    transformers: tuple[nn.Module, ...]
    autoencoder: AutoencoderDCV
    image_encoder_bytes: int = 0

    @property
    def image_to_video(self) -> bool:
        config = self.transformers[0].config
        return config.in_channels > config.out_channels

    @property
    def width(self) -> int:
        """Of the transformer's widest linear layers' input."""
        config = self.transformers[0].config
        return config.num_attention_heads * config.attention_head_dim

    @functools.cached_property
    def weights(self) -> dict[str, int]:
        """Bytes by component."""
        parts = {"text encoder": self.text_encoder, "autoencoder": self.autoencoder}
        parts |= {f"transformer {number}": one for number, one in enumerate(self.transformers, start=1)}
        sizes = {name: bytes_of(network) for name, network in parts.items() if network is not None}
        return sizes | ({"image encoder": self.image_encoder_bytes} if self.image_encoder_bytes else {})

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
        batch = 2 if asked.guided else 1

        def run() -> object:
            ids = torch.empty(batch, asked.text_tokens, dtype=torch.long, device="meta")
            return self.text_encoder(ids).last_hidden_state.float()

        return peak_bytes([self.text_encoder, *self.text_encoder.children()], run)

    def text_flops(self, asked: Asked) -> float:
        """Two per weight of the blocks and token; attention among 512 tokens is 2 % of it."""
        if self.text_encoder is None:
            return 0.0
        weights = sum(parameter.numel() for parameter in self.text_encoder.encoder.block.parameters())
        return 2.0 * weights * asked.text_tokens * (2 if asked.guided else 1)

    def latent_shape(self, asked: Asked) -> tuple[int, int, int]:
        """(t, h, w): whole patches of the transformer that hold the video."""
        grid = self.autoencoder.geometry.latent_shape(asked.num_frames, asked.height, asked.width)
        patch = self.transformers[0].config.patch_size
        return tuple(-(-size // step) * step for size, step in zip(grid, patch, strict=True))

    def transformer_activations(self, asked: Asked, batch: int) -> int:
        """Bytes at the peak of one forward pass of `batch` videos, its inputs and its output included."""
        return max(peak_bytes([one], lambda one=one: self._forward(one, asked, batch)) for one in self.transformers)

    def transformer_flops(self, asked: Asked) -> float:
        """Of one forward pass of one video."""
        return cost_of(self.transformers[0], lambda one: self._forward(one, asked, 1)).forward

    def autoencoder_flops(self, asked: Asked) -> tuple[float, float]:
        """To encode and to decode one video. Convs pad each side, so every latent costs the same."""
        geometry = self.autoencoder.geometry
        one = conv_flops(self.autoencoder, geometry.temporal_ratio, geometry.spatial_ratio, geometry.spatial_ratio)
        latents = math.prod(self.latent_shape(asked))
        return one[0] * latents, one[1] * latents

    def _forward(self, transformer: nn.Module, asked: Asked, batch: int) -> torch.Tensor:
        config, dtype = transformer.config, transformer.dtype
        with torch.device("meta"):
            image = None
            if config.image_dim is not None:
                image = torch.empty(batch, IMAGE_TOKENS, config.image_dim, dtype=dtype)
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
        image_encoder_bytes=0 if image_encoder is None else bytes_of(image_encoder),
    )


def networks_from_configs(
    text_encoder: Mapping[str, Any] | None,
    transformers: Sequence[Mapping[str, Any]],
    autoencoder: Mapping[str, Any],
    *,
    dtype: torch.dtype,
    text_dtype: torch.dtype | None = None,
    autoencoder_dtype: torch.dtype | None = None,
    image_encoder_bytes: int = 0,
) -> Networks:
    """Of the contents of their config.json. dtype: of all weights, where no other is given for a part."""
    text = None
    if text_encoder is not None:
        import transformers as library

        with torch.device("meta"):
            text = library.UMT5EncoderModel(library.UMT5Config(**text_encoder)).eval()
        text = nn.Module.to(text, text_dtype or dtype)
    with torch.device("meta"):
        decoder = AutoencoderDCV.from_config(dict(autoencoder))
    return Networks(
        text,
        tuple(_in_dtype(transformer_on_meta(config), dtype).requires_grad_(False) for config in transformers),
        nn.Module.to(decoder, autoencoder_dtype or dtype).eval(),
        image_encoder_bytes,
    )


def published_networks(model: str, autoencoder: str = "f32t4c32", *, dtype: torch.dtype = torch.bfloat16) -> Networks:
    """Of a published Wan model moved to a published autoencoder's latents, from nothing but their names.

    model: a key of WAN_CONFIGS; autoencoder: one of PRESETS. The moved transformer has patches of one latent, as the
    authors' have (DC-Gen-Wan2.1-T2V-14B). UserError for other names.
    """
    if model not in WAN_CONFIGS:
        raise UserError(f"no published model {model!r} to plan with; known: {', '.join(WAN_CONFIGS)}")
    check_preset(autoencoder)
    base, channels = WAN_CONFIGS[model], PRESETS[autoencoder]["latent_channels"]
    moved = {**base, "in_channels": channels, "out_channels": channels, "patch_size": (1, 1, 1)}
    if base["in_channels"] != base["out_channels"]:
        moved["in_channels"] = 2 * channels + MASK_CHANNELS
    experts = 2 if model.endswith("a14b") else 1
    image = CLIP_PARAMETERS * dtype.itemsize if base["image_dim"] is not None else 0
    return networks_from_configs(
        UMT5_XXL, [moved] * experts, PRESETS[autoencoder], dtype=dtype, image_encoder_bytes=image
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
