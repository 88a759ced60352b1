"""The image encoder of an image-to-video base: CLIP, whose tokens its transformer is shown beside the text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcvideogen.adaptation.text import to_weights
from dcvideogen.errors import UserError
from dcvideogen.video import video_to_frames


class ImageEncoder:
    """CLIP's tokens of a picture, from image_encoder/ and image_processor/ of a pipeline folder (Wan 2.1's
    image-to-video: the hidden states before the last layer)."""

    def __init__(self, base: Path, device: torch.device, dtype: torch.dtype) -> None:
        import transformers
        from transformers import CLIPVisionModel

        transformers.utils.logging.disable_progress_bar()
        # The one on PIL, where there are two: without torchvision it is what is run, after a warning.
        processor = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
        try:
            self.processor = processor.from_pretrained(base / "image_processor", local_files_only=True)
            model = CLIPVisionModel.from_pretrained(
                base / "image_encoder", dtype=dtype, local_files_only=True, use_safetensors=True
            )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a foreign folder makes the library raise
            told = " ".join(str(error).split())[:300]
            raise UserError(f"the image encoder of {base} cannot be loaded: {told}") from error
        self.model = model.to(device).eval().requires_grad_(False)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] -> (B, N, D)."""
        return clip_tokens(self.model, self.processor, images)


def clip_tokens(model: Any, processor: Any, images: Tensor) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] -> (B, N, D): the hidden states before CLIP's last layer."""
    pictures = list(video_to_frames(images.transpose(0, 1)))
    pixels = processor(images=pictures, return_tensors="pt").pixel_values
    return model(to_weights(pixels.to(model.dtype), model), output_hidden_states=True).hidden_states[-2]
