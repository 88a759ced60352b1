"""Carries out a memory plan: puts a pipeline's parts where the plan says."""

from __future__ import annotations

from dataclasses import replace

import torch

from dcvideogen.adaptation.wan_configs import WAN_CONFIGS
from dcvideogen.errors import UserError
from dcvideogen.pipelines.loading import find_model, lay_out
from dcvideogen.pipelines.memory_models import Networks, networks_of
from dcvideogen.pipelines.memory_plan import GROUPS, OFFLOAD, Plan
from dcvideogen.pipelines.memory_published import published_networks
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline


def networks_in(pipeline: DCVideoGenPipeline) -> Networks:
    """To plan with: the pipeline's own, without their weights."""
    transformers = [one for one in (pipeline.transformer, pipeline.transformer_2) if one is not None]
    networks = networks_of(
        pipeline.text_encoder, transformers, pipeline.autoencoder, pipeline.components.get("image_encoder")
    )
    return replace(networks, first_latent=len(pipeline.tasks) > 1)


def networks_named(model: str, dtype: torch.dtype) -> Networks:
    """Of a published model, moved to the published f32t4c32 latents, by its name alone.

    UserError lists the names there are.
    """
    if model not in WAN_CONFIGS:
        try:
            find_model(model)
        except UserError as error:
            raise UserError(f"{error}; plans without weights: {', '.join(WAN_CONFIGS)}") from None
    return published_networks(model, dtype=dtype)


def place(pipeline: DCVideoGenPipeline, plan: Plan, device: torch.device) -> None:
    """Moves the weights to the device, or has diffusers move them when they are needed."""
    lay_out(pipeline, device)
    if plan.placement == OFFLOAD:
        pipeline.enable_model_cpu_offload(device=device)
    elif plan.placement == GROUPS:
        # The autoencoder stays: its encode and decode are not the forward that groups are moved for.
        pipeline.enable_group_offload(
            onload_device=device,
            offload_device=torch.device("cpu"),
            offload_type="block_level",
            num_blocks_per_group=1,
            exclude_modules=["autoencoder"],
        )
    else:
        pipeline.to(device)
