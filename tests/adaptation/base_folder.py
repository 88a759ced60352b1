"""A base pipeline's folder with tiny random parts of the real classes, and datasets of small captioned videos."""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from media import moving_frames, write_clip

CAPTIONS = ("a red ball", "a blue ball &amp; a  box", "a red ball", "nothing moves", "a green triangle", "a cat")


def write_vae(folder: Path, seed: int = 0) -> None:
    from diffusers import AutoencoderKLWan

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        AutoencoderKLWan(
            base_dim=4, z_dim=4, dim_mult=[1, 2, 2, 2], num_res_blocks=1, temperal_downsample=[False, True, True],
            latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.5, 1.5, 2.0, 1.0],
        ).save_pretrained(folder)  # fmt: skip


def write_text_encoder(folder: Path, seed: int = 0) -> None:
    from transformers import ByT5Tokenizer, UMT5Config, UMT5EncoderModel

    config = UMT5Config(vocab_size=259, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        UMT5EncoderModel(config).save_pretrained(folder / "text_encoder")
    ByT5Tokenizer(extra_ids=0).save_pretrained(folder / "tokenizer")


def write_image_encoder(folder: Path, seed: int = 0) -> None:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(
        hidden_size=20, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=16
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        CLIPVisionModel(config).save_pretrained(folder / "image_encoder")
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size=size, crop_size=size).save_pretrained(folder / "image_processor")


def base_folder(folder: Path) -> Path:
    """vae, text_encoder, tokenizer, image_encoder, image_processor and model_index.json of a Wan pipeline."""
    write_vae(folder / "vae")
    write_text_encoder(folder)
    write_image_encoder(folder)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline"}))
    return folder


def autoencoder_folder(folder: Path) -> Path:
    """A tiny f32t4c16 autoencoder, chunks of 8 frames."""
    from dcvideogen.autoencoder.presets import make_autoencoder

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make_autoencoder("dcae-tiny-f32t4c16")
    model.register_to_config(latent_space_id=model.fingerprint())
    model.save_pretrained(folder)
    return folder


def dataset(folder: Path, count: int = 6, num_frames: int = 8, height: int = 64, width: int = 64) -> Path:
    """`count` videos of 16 frames per second that slide, and manifest.jsonl with their captions; returns the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for index in range(count):
        write_clip(folder / f"clip{index}.mkv", moving_frames(num_frames, height, width, seed=index), fps=16)
        lines.append(json.dumps({"path": f"clip{index}.mkv", "caption": CAPTIONS[index % len(CAPTIONS)]}))
    manifest = folder / "manifest.jsonl"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest


def still_frames(num_frames: int, height: int = 64, width: int = 64) -> np.ndarray:
    return np.repeat(moving_frames(1, height, width), num_frames, axis=0)


def cache_settings(base: Path, autoencoder: Path, source: Path, **changes):
    """Of a cache of `dataset`: 8 frames, two clips held out, two and one with base latents, stored exactly."""
    from dcvideogen.adaptation.cache import BucketSettings, CacheSettings

    return CacheSettings(
        **{
            "source": source,
            "base": base,
            "autoencoder": str(autoencoder),
            "num_frames": 8,
            "buckets": BucketSettings(height=64, width=64),
            "held_out": 2,
            "alignment_clips": 2,
            "alignment_held_out": 1,
            "max_sequence_length": 32,
            "stored_dtype": "fp32",
            "clips_per_shard": 2,
            "device": "cpu",
        }
        | changes
    )
