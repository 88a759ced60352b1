"""Which parameters a stage trains: parts of the autoencoder by name, or patterns over the names of its parameters."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from dcvideogen.autoencoder.layers import ResBlock
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError


def named_parts(model: AutoencoderDCV) -> dict[str, tuple[str, ...]]:
    """Name -> patterns of parameter names.

    encoder, decoder: all of it.
    deep: what works at the latents' height and width, with the steps to and from it: the layers that latents of other
        sizes look different to (the middle layers of DC-AE, Chen et al. 2024, arXiv 2410.10733).
    latent: the convs that give and take the latents.
    blocks: the residual blocks, on both sides; a linear start (training/linear_start.py) leaves them empty, and what it
        sets stays as it is.
    decoder_last: the step to the decoder's last stage, the blocks there, and the head that makes the pixels.
    """
    encoder, decoder = model.encoder, model.decoder
    deepest = model.geometry.spatial_ratio
    shallowest = decoder.strides[-2]
    into_last = max((i for i, stride in enumerate(decoder.strides[:-1]) if stride > shallowest), default=0)
    deep = [f"encoder.layers.{i}.*" for i in range(len(encoder.layers)) if encoder.strides[i + 1] == deepest]
    deep += [f"decoder.layers.{i}.*" for i in range(len(decoder.layers)) if decoder.strides[i] == deepest]
    return {
        "encoder": ("encoder.*",),
        "decoder": ("decoder.*",),
        "deep": tuple(deep),
        "blocks": tuple(
            f"{side}.layers.{i}.*"
            for side, network in (("encoder", encoder), ("decoder", decoder))
            for i, layer in enumerate(network.layers)
            if isinstance(layer, ResBlock)
        ),
        "latent": (f"encoder.layers.{len(encoder.layers) - 1}.*", "decoder.layers.0.*"),
        "decoder_last": tuple(f"decoder.layers.{i}.*" for i in range(into_last, len(decoder.layers))),
    }


def choose_trainable(model: AutoencoderDCV, wanted: Sequence[str]) -> None:
    """Only what is named gets gradients: names of `named_parts`, or patterns (as in a shell) of parameter names.

    Raises UserError for one that fits nothing.
    """
    parts = named_parts(model)
    patterns = [pattern for one in wanted for pattern in parts.get(one, (one,))]
    names = [name for name, _ in model.named_parameters()]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise UserError(
                f"trainable: no parameter is named like {pattern!r}; parts: {', '.join(parts)}; names: "
                f"{', '.join(names[:2])}, ..., {names[-1]}"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns))
