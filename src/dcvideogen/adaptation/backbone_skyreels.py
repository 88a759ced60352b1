"""SkyReels-V2, Wan's architecture in a class of its own: text to video, and image to video with CLIP.

Its diffusion-forcing models give every frame a noise level of its own and are told the frame rate; they are refused.
"""

from __future__ import annotations

from torch import Tensor, nn

from dcvideogen.adaptation.backbone import Backbone, Config
from dcvideogen.adaptation.backbone_wan import WAN, WanBackbone
from dcvideogen.adaptation.batch import LatentBatch
from dcvideogen.adaptation.patches import Patch
from dcvideogen.errors import UserError


class SkyReelsBackbone(WanBackbone):
    def with_latents(self, config: Config, *, latent_channels: int, patch_size: Patch, condition: bool) -> dict:
        if config["inject_sample_info"] or config["num_frame_per_block"] > 1:
            raise UserError("a diffusion-forcing SkyReels-V2 came; its text- and image-to-video models are allowed")
        return super().with_latents(config, latent_channels=latent_channels, patch_size=patch_size, condition=condition)

    def velocity(self, transformer: nn.Module, latents: Tensor, sigma: Tensor, batch: LatentBatch) -> Tensor:
        """Without the 5B's way to give a first latent, which this class does not know."""
        return Backbone.velocity(self, transformer, latents, sigma, batch)


SKYREELS_V2 = SkyReelsBackbone(
    family="skyreels-v2",
    class_name="SkyReelsV2Transformer3DModel",
    embedder=WAN.embedder,
    head=WAN.head,
    head_modulation=WAN.head_modulation,
    lora_targets=WAN.lora_targets,
    head_order=WAN.head_order,
)
