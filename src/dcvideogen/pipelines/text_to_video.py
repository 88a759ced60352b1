"""DCVideoGenPipeline: text to video with an adapted transformer, of exactly the size that is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from diffusers import DiffusionPipeline, WanTransformer3DModel
from diffusers.loaders import WanLoraLoaderMixin
from diffusers.video_processor import VideoProcessor
from torch import Tensor, nn

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.folder import AdaptationInfo
from dcvideogen.adaptation.positions import set_positions
from dcvideogen.adaptation.text import TextEncoder, pad_embeds
from dcvideogen.autoencoder.model import AutoencoderDCV
from dcvideogen.errors import UserError
from dcvideogen.pipelines.call import CALLBACK_TENSORS, Callback, VideoOutput, check_inputs
from dcvideogen.pipelines.denoise import Conditions, Expert, denoise
from dcvideogen.pipelines.noise import one_for_each, starting_noise
from dcvideogen.pipelines.parts import Task, check_parts, tasks_of
from dcvideogen.pipelines.sizes import VideoSize
from dcvideogen.pipelines.texts import text_conditions

log = logging.getLogger(__name__)


class DCVideoGenPipeline(DiffusionPipeline, WanLoraLoaderMixin):
    """Text -> video. Transformer and scheduler are diffusers' own, and so is all that a pipeline of theirs can do:
    LoRA, offloading, casting, callbacks, generators.

    adaptation: as in the transformer's adaptation.json (`AdaptationInfo`). transformer_2, boundary_ratio: a second
    transformer for noise levels below that one. Raises UserError for parts that do not belong together.
    """

    task: Task = "t2v"
    model_cpu_offload_seq = "text_encoder->transformer->transformer_2->autoencoder"
    _callback_tensor_inputs = CALLBACK_TENSORS
    _optional_components = ["transformer_2"]  # noqa: RUF012 - diffusers reads a list

    def __init__(
        self,
        tokenizer: Any,
        text_encoder: nn.Module,
        transformer: WanTransformer3DModel,
        autoencoder: AutoencoderDCV,
        scheduler: Any,
        transformer_2: WanTransformer3DModel | None = None,
        boundary_ratio: float | None = None,
        adaptation: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            transformer=transformer,
            autoencoder=autoencoder,
            scheduler=scheduler,
            transformer_2=transformer_2,
        )
        if adaptation is None:
            raise UserError("a transformer without adaptation came; load it with its adaptation.json, or an adapter")
        self.adaptation = AdaptationInfo(**adaptation)
        self.register_to_config(boundary_ratio=boundary_ratio, adaptation=self.adaptation.model_dump(mode="json"))
        check_parts(transformer, autoencoder, self.adaptation, self.task)
        for one in (transformer, transformer_2):
            if one is not None and self.adaptation.positions != "integer":
                ratio = self.adaptation.position_ratio
                set_positions(one, backbone_named(self.adaptation.family), self.adaptation.positions, ratio)
        self._interrupt = False

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it can be asked for."""
        return tasks_of(
            self.transformer.config.in_channels, self.adaptation.latent_channels, self.adaptation.first_latent
        )

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> Self:
        """What `save_pretrained` wrote; a base's folder, with adapter and autoencoder as in `loading.load_pipeline`; or
        the authors' published folder. Other options are diffusers' own, for the first."""
        from dcvideogen.pipelines.loading import is_own, load_pipeline

        if is_own(Path(folder)) and not {"adapter", "autoencoder"} & options.keys():
            return super().from_pretrained(folder, **options)
        dtype = options.pop("torch_dtype", options.pop("dtype", torch.float32))
        return load_pipeline(folder, task=cls.task, dtype=dtype, **options)

    @property
    def interrupt(self) -> bool:
        """Set by a callback (`pipeline._interrupt = True`) to end the loop after its step."""
        return self._interrupt

    def encode_prompt(self, prompts: Sequence[str], max_sequence_length: int | None = None) -> Tensor:
        """(B, L, D) in fp32 on the pipeline's device, zero behind each text's end; longer texts are cut at L tokens."""
        length = max_sequence_length or self.adaptation.trained.max_sequence_length
        embeds, _ = pad_embeds(TextEncoder(self.text_encoder, self.tokenizer, length).encode(prompts), length)
        return embeds.to(self._execution_device)

    check_inputs = staticmethod(check_inputs)

    def prepare_latents(
        self, count: int, size: VideoSize, generator: Any, latents: Tensor | None, device: torch.device
    ) -> Tensor:
        """Noise (B, C, t, h, w) in fp32 for B videos of the size, or the one that came."""
        grid = size.latent_shape(self.autoencoder.geometry, self.transformer.config.patch_size)
        shape = (count, self.adaptation.latent_channels, *grid)
        if latents is None:
            return starting_noise(shape, generator, device)
        if tuple(latents.shape) != shape:
            raise UserError(f"latents of shape {tuple(latents.shape)} came; {shape} is needed for this video")
        return latents.to(device, torch.float32)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        attention_kwargs: dict[str, Any] | None = None,
        callback_on_step_end: Callback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] = ("latents",),
        max_sequence_length: int | None = None,
        guidance_as_batch: bool = True,
        rows_per_step: int | None = None,
        offload_state: bool = False,
        add_conditions: Callable[[Conditions, VideoSize, Tensor], Conditions] | None = None,
    ) -> VideoOutput | tuple:
        """Videos of exactly height x width pixels and num_frames frames; what is not given is as the model recommends.

        negative_prompt: by default the text that stood for no text in training. guidance_scale: 1 and below: without;
        guidance_scale_2: of transformer_2. num_videos_per_prompt: the videos of a prompt follow each other.
        generator: one, or one per video (`noise.video_generator` makes those of the command line). latents: the noise.
        prompt_embeds, negative_prompt_embeds: (B, L, D), as `encode_prompt` gives them.
        callback_on_step_end: as in diffusers. guidance_as_batch: see `denoise.predict`. rows_per_step, offload_state:
        how the autoencoder decodes, see `AutoencoderDCV.decode`. add_conditions: (what the transformer is told of the
        text, size, noise) -> the same with what else it is told, such as an image.
        """
        defaults = self.adaptation.sampling
        steps = defaults.steps if num_inference_steps is None else num_inference_steps
        guidance = defaults.guidance if guidance_scale is None else guidance_scale
        self.check_inputs(
            prompt, prompt_embeds, negative_prompt, negative_prompt_embeds, steps, output_type,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        size = self.asked_size(height, width, num_frames)
        given = text_conditions(
            self, prompt, negative_prompt, prompt_embeds, negative_prompt_embeds,
            guided=max(guidance, guidance_scale_2 or 0) > 1, repeat=num_videos_per_prompt, length=max_sequence_length,
        )  # fmt: skip
        noise = self.prepare_latents(len(given.prompt_embeds), size, generator, latents, self._execution_device)
        if add_conditions is not None:
            given = add_conditions(given, size, noise)
        made = self._denoise(
            noise, given, steps, (guidance, guidance_scale_2), guidance_as_batch, attention_kwargs,
            one_for_each(generator, len(noise)), callback_on_step_end,
            callback_on_step_end_tensor_inputs,
        )  # fmt: skip
        frames = self._finish(made, size, output_type, rows_per_step, offload_state)
        return VideoOutput(frames=frames) if return_dict else (frames,)

    def _finish(
        self, latents: Tensor, size: VideoSize, output_type: str, rows_per_step: int | None, offload_state: bool
    ) -> Any:
        """Frames in the form that was asked for."""
        frames = latents
        if output_type != "latent":
            video = self.autoencoder.decode(
                latents.to(self.autoencoder.dtype), height=size.height, width=size.width, num_frames=size.num_frames,
                rows_per_step=rows_per_step, offload_state=offload_state,
            )  # fmt: skip
            frames = VideoProcessor().postprocess_video(video.float().clamp(-1, 1), output_type=output_type)
        self.maybe_free_model_hooks()
        return frames

    def asked_size(self, height: int | None, width: int | None, num_frames: int | None) -> VideoSize:
        """The size, completed by the largest that the model was trained for, with a note or a warning where due."""
        trained = self.adaptation.trained.sizes
        usual = max(trained, key=lambda one: one[0] * one[1] * one[2]) if trained else (480, 832, 80)
        size = VideoSize(
            *(own if own is not None else other for own, other in zip((height, width, num_frames), usual, strict=True))
        )
        grid = size.latent_shape(self.autoencoder.geometry, self.transformer.config.patch_size)
        if padding := size.told_padding(self.autoencoder.geometry, grid):
            log.info("%s", padding)
        if untrained := size.told_untrained(trained):
            log.warning("%s", untrained)
        return size

    def _denoise(
        self,
        noise: Tensor,
        given: Conditions,
        steps: int,
        guidance: tuple[float, float | None],
        as_batch: bool,
        attention_kwargs: dict[str, Any] | None,
        generators: list[torch.Generator] | None,
        callback: Callback | None,
        callback_tensors: Sequence[str],
    ) -> Tensor:
        self._interrupt = False
        self.scheduler.set_timesteps(steps, device=noise.device)
        boundary = (self.config.boundary_ratio or 0.0) * self.scheduler.config.num_train_timesteps
        high = Expert(self.transformer, guidance[0])
        low = (
            high
            if self.transformer_2 is None
            else Expert(self.transformer_2, guidance[0] if guidance[1] is None else guidance[1])
        )

        with self.progress_bar(total=len(self.scheduler.timesteps)) as bar:  # Heun has two for a step

            def after_step(index: int, timestep: Tensor, latents: Tensor, given: Conditions) -> tuple:
                bar.update()
                if callback is not None:
                    known = {
                        "latents": latents,
                        "prompt_embeds": given.prompt_embeds,
                        "negative_prompt_embeds": given.negative_embeds,
                    }
                    known |= callback(self, index, timestep, {name: known[name] for name in callback_tensors})
                    latents = known["latents"]
                    given = replace(
                        given,
                        prompt_embeds=known["prompt_embeds"],
                        negative_embeds=known["negative_prompt_embeds"],
                    )
                return latents, given, not self._interrupt

            return denoise(
                self.scheduler, noise, lambda timestep: high if timestep >= boundary else low, given,
                as_batch=as_batch, attention_kwargs=attention_kwargs, generators=generators, after_step=after_step,
            )  # fmt: skip
