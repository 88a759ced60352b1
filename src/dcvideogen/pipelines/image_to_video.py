"""DCVideoGenImageToVideoPipeline: a first image, and perhaps a last one, and a text to video."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from dcvideogen.adaptation.image_encoder import clip_tokens
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.conditioning import condition, condition_latents
from dcvideogen.errors import UserError
from dcvideogen.geometry import pad_video
from dcvideogen.pipelines.denoise import Conditions
from dcvideogen.pipelines.images import load_image, size_for
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.text_to_video import Callback, DCVideoGenPipeline, VideoOutput

ImageInput = str | Path | Image.Image | Tensor


class DCVideoGenImageToVideoPipeline(DCVideoGenPipeline):
    """Image and text -> video; everything else as in `DCVideoGenPipeline`.

    A transformer without channels for an image (Wan 2.2 5B's way) needs none: then it is given the text alone.

    image_encoder, image_processor: CLIP's, for transformers that see its tokens.
    """

    task = "i2v"
    model_cpu_offload_seq = "text_encoder->image_encoder->transformer->transformer_2->autoencoder"
    _optional_components = ["transformer_2", "image_encoder", "image_processor"]  # noqa: RUF012 - diffusers reads a list

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: nn.Module,
        transformer: nn.Module,
        autoencoder: AutoencoderDCV,
        scheduler: Any,
        transformer_2: nn.Module | None = None,
        image_encoder: nn.Module | None = None,
        image_processor: Any = None,
        boundary_ratio: float | None = None,
        adaptation: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            tokenizer, text_encoder, transformer, autoencoder, scheduler, transformer_2, boundary_ratio, adaptation
        )
        self.register_modules(image_encoder=image_encoder, image_processor=image_processor)
        if transformer.config.image_dim is not None and image_encoder is None:
            raise UserError("the transformer sees CLIP tokens of the image, and no image_encoder came; give its folder")

    @torch.no_grad()
    def __call__(
        self,
        image: ImageInput | None = None,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        image_guidance_scale: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        last_image: ImageInput | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int | None = None,
        guidance_as_batch: bool = True,
        rows_per_step: int | None = None,
        offload_state: bool = False,
    ) -> VideoOutput | tuple:
        """Videos that begin with the image, and end with the last one if it came; for each prompt the same images.

        image, last_image: a file, a PIL image, or a tensor (1, 3, H, W) in [-1, 1]; files and PIL images are resized to
        cover and cropped at the centre. An image of (1, 3, n, H, W) is the end of a video to go on from (`long_video`).
        height, width: where neither is given, the image's shape at the area that the model was trained for.
        image_guidance_scale: how closely the image is followed, for models that were trained without theirs now and
        then; 1 and below: without; by default as the model recommends. It takes one pass more for each step.
        The rest as in `DCVideoGenPipeline`. UserError: no image where one is needed, or a tensor of another shape.
        """
        if image is None and (last_image is not None or "t2v" not in self.tasks):
            raise UserError("an image is needed; for text alone there is DCVideoGenPipeline")
        if image is not None and height is None and width is None:
            height, width = self.size_of(image)
        image_guidance = (
            self.adaptation.sampling.image_guidance if image_guidance_scale is None else image_guidance_scale
        )

        if image_guidance > 1 and self.adaptation.first_latent == "given":
            raise UserError(
                f"image guidance {image_guidance:g} came, which a model that keeps its first latent has no use for; "
                "leave it out"
            )

        def add_images(given: Conditions, size: VideoSize, noise: Tensor) -> Conditions:
            told = self.with_images(
                given, image, last_image, size, noise, rows_per_step=rows_per_step, offload_state=offload_state
            )
            return replace(told, image_guidance=image_guidance)

        return super().__call__(
            prompt=prompt,
            negative_prompt=negative_prompt,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_scale_2=guidance_scale_2,
            num_videos_per_prompt=num_videos_per_prompt,
            generator=generator,
            latents=latents,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            output_type=output_type,
            return_dict=return_dict,
            attention_kwargs=attention_kwargs,
            callback_on_step_end=callback_on_step_end,
            callback_on_step_end_tensor_inputs=callback_on_step_end_tensor_inputs,
            max_sequence_length=max_sequence_length,
            guidance_as_batch=guidance_as_batch,
            rows_per_step=rows_per_step,
            offload_state=offload_state,
            add_conditions=None if image is None else add_images,
        )

    def size_of(self, image: ImageInput) -> tuple[int, int]:
        """(height, width) of the image's shape, at the largest area that the model was trained for."""
        areas = [height * width for height, width, _ in self.adaptation.trained.sizes] or [480 * 832]
        patch = math.lcm(*self.transformer.config.patch_size[1:])
        multiple = self.autoencoder.geometry.spatial_ratio * patch
        if isinstance(image, Tensor):
            check_tensor(image, self.autoencoder.geometry.temporal_ratio)
            image = Image.new("L", (image.shape[-1], image.shape[-2]))
        return size_for(image, max(areas), multiple)

    def with_images(
        self,
        given: Conditions,
        image: ImageInput,
        last_image: ImageInput | None,
        size: VideoSize,
        noise: Tensor,
        *,
        rows_per_step: int | None,
        offload_state: bool,
    ) -> Conditions:
        """The conditions, and with them what the transformer is told of the images: mask, latents, CLIP's tokens."""
        geometry = self.autoencoder.geometry
        ratio = geometry.temporal_ratio
        height, width = geometry.video_size(*noise.shape[3:])
        # Where the video is cropped, so is the image: what lies outside repeats its edge, as in training.
        first, last = (
            None if one is None else pad_video(self.frames(one, size), height, width) for one in (image, last_image)
        )
        if first.shape[2] == 1:
            first = first.expand(-1, -1, ratio, -1, -1)
        latents = condition_latents(
            functools.partial(self.autoencoder.encode, rows_per_step=rows_per_step, offload_state=offload_state),
            first.to(noise.device, self.autoencoder.dtype),
            geometry.num_video_frames(noise.shape[2]),
            how=self.adaptation.image_condition,
            latent_frames=ratio,
            chunk_frames=geometry.chunk_frames,
            last_image=None if last is None else last[:, :, 0].to(noise.device, self.autoencoder.dtype),
        )
        channels = condition(latents.float(), given=first.shape[2] // ratio, last=last is not None)
        tokens = None
        if self.image_encoder is not None:
            shown = torch.cat([one[:, :, -1, : size.height, : size.width] for one in (first, last) if one is not None])
            tokens = clip_tokens(self.image_encoder, self.image_processor, shown)
            tokens = tokens.flatten(0, 1)[None].to(noise.device).expand(len(noise), -1, -1)
        channels = channels.to(noise.device).expand(len(noise), -1, -1, -1, -1)
        holds = self.adaptation.first_latent == "given"
        return replace(given, channels=channels, image_embeds=tokens, given=holds)

    def frames(self, image: ImageInput, size: VideoSize) -> Tensor:
        """(1, 3, n, H, W) in [-1, 1], of the video's size: 1 frame, or those of a video to go on from."""
        if not isinstance(image, Tensor):
            return load_image(image, size.height, size.width)[:, :, None]
        check_tensor(image, self.autoencoder.geometry.temporal_ratio)
        if tuple(image.shape[-2:]) != (size.height, size.width):
            raise UserError(
                f"an image tensor of {image.shape[-1]}x{image.shape[-2]} pixels came for a video of "
                f"{size.width}x{size.height}; give it in that size, or as a PIL image"
            )
        return image.float().cpu() if image.ndim == 5 else image.float().cpu()[:, :, None]


def check_tensor(image: Tensor, temporal_ratio: int) -> None:
    """Raises UserError unless it is one image, or frames that fill whole latents."""
    frames = image.shape[2] if image.ndim == 5 else temporal_ratio
    if (
        image.ndim not in (4, 5)
        or image.shape[:2] != (1, 3)
        or frames % temporal_ratio
        or not image.is_floating_point()
    ):
        raise UserError(
            f"an image tensor of shape {tuple(image.shape)} came; (1, 3, H, W), float in [-1, 1] is allowed, or "
            f"(1, 3, n, H, W) of a video to go on from, n a multiple of {temporal_ratio}"
        )
