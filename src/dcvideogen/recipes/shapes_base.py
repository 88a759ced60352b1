"""Makes the shapes world's base model: a text-to-video pipeline in diffusers' own classes, trained from random weights.

Its folder is a diffusers WanPipeline: byte-level UMT5, causal f8t4c16 AutoencoderKLWan, WanTransformer3DModel with
patches of 1 x 2 x 2. It plays the part of the pretrained model that is adapted.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from pydantic import Field
from transformers import UMT5EncoderModel

from dcvideogen.adaptation.backbone_wan import WAN
from dcvideogen.adaptation.cache import build_cache, open_cache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.cache_settings import CacheSettings
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.flow_settings import FlowSettings
from dcvideogen.adaptation.folder import save_transformer
from dcvideogen.data.settings import Frozen
from dcvideogen.data.shapes import plan_clips, render
from dcvideogen.recipes.shapes_base_text import WIDTH, Captions, TextTask, make_text_encoder, make_tokenizer
from dcvideogen.recipes.shapes_base_vae import CHANNELS, BlockComponents, RenderedCrops, VaeTask, make_vae
from dcvideogen.shapes_world import combinations
from dcvideogen.training.autoencoder_export import replace_folder
from dcvideogen.training.loop import fit
from dcvideogen.training.settings import FitSettings

log = logging.getLogger(__name__)

COMPONENT_CLIPS = 200
HELD_OUT_COMBINATIONS = 12
HELD_OUT_CLIPS = 32
# Seeds of clips that no training sees.
HELD_OUT_SEED = 2**31


class VaeSettings(Frozen):
    """batch_size, num_frames (1 + 4 n), size: of the crops, in frames and pixels. decoder_only: see `VaeTask`."""

    batch_size: int = Field(gt=0)
    num_frames: int = Field(gt=0)
    size: int = Field(gt=0)
    decoder_only: bool
    train: FitSettings


class TransformerSettings(Frozen):
    """num_layers, num_attention_heads, attention_head_dim, ffn_dim: as in diffusers' WanTransformer3DModel."""

    num_layers: int = Field(default=7, gt=0)
    num_attention_heads: int = Field(default=6, gt=0)
    attention_head_dim: int = Field(default=32, gt=0)
    ffn_dim: int = Field(default=640, gt=0)
    flow: FlowSettings
    batch_size: int = Field(gt=0)
    train: FitSettings


class ShapesBaseRecipe(Frozen):
    """A complete run of `dcvideogen shapes train-base`. clips: to train on, see `dcvideogen shapes render`.

    text_batch_size: captions per step. cache: its `base`, `source` and `autoencoder` are filled in by the run.
    """

    clips: Path
    text: FitSettings
    text_batch_size: int = Field(default=64, gt=0)
    vae: tuple[VaeSettings, VaeSettings]
    cache: CacheSettings
    transformer: TransformerSettings


def train_shapes_base(recipe: ShapesBaseRecipe, folder: Path, *, workers: int = 1) -> bool:
    """Runs all stages, or goes on with the run in `folder`; True when folder/pipeline is done. A signal stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = folder / "parts"
    for run in (run_text, run_vae, run_decoder):
        if not run(recipe, folder):
            return False
    shift = recipe.transformer.flow.shift
    assemble(folder, parts, new_transformer(recipe.transformer, seed=0), shift)
    settings = recipe.cache.model_copy(update={"source": recipe.clips, "base": parts, "autoencoder": None})
    build_cache(settings, folder / "cache", workers=workers)
    if not run_transformer(recipe, folder):
        return False
    transformer = WanTransformer3DModel.from_pretrained(folder / "transformer" / "model")
    assemble(folder, folder / "pipeline", transformer, shift)
    return True


def run_text(recipe: ShapesBaseRecipe, folder: Path) -> bool:
    captions = Captions(recipe.text_batch_size, recipe.text.seed)
    return fit(TextTask(make_text_encoder(recipe.text.seed), captions), captions, recipe.text, folder / "text")


def run_vae(recipe: ShapesBaseRecipe, folder: Path) -> bool:
    return fit_vae(recipe.vae[0], make_vae(recipe.vae[0].train.seed), folder / "vae")


def run_decoder(recipe: ShapesBaseRecipe, folder: Path) -> bool:
    return fit_vae(recipe.vae[1], AutoencoderKLWan.from_pretrained(folder / "vae" / "model"), folder / "decoder")


def fit_vae(settings: VaeSettings, vae: AutoencoderKLWan, folder: Path) -> bool:
    sample = [
        render(clip.combination, clip.seed)[:, 3:] for clip in plan_clips("train", COMPONENT_CLIPS, HELD_OUT_SEED)
    ]
    step = len(combinations("test")) // HELD_OUT_COMBINATIONS
    held_out = [render(combination, HELD_OUT_SEED)[None, :, 3:] for combination in combinations("test")[::step]]
    task = VaeTask(
        vae,
        BlockComponents(torch.stack(sample)),
        held_out,
        decoder_only=settings.decoder_only,
        seed=settings.train.seed,
    )
    data = RenderedCrops(
        batch_size=settings.batch_size,
        num_frames=settings.num_frames,
        size=settings.size,
        seed=settings.train.seed,
    )
    return fit(task, data, settings.train, folder)


def new_transformer(settings: TransformerSettings, seed: int) -> WanTransformer3DModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=settings.num_attention_heads,
            attention_head_dim=settings.attention_head_dim,
            in_channels=CHANNELS,
            out_channels=CHANNELS,
            text_dim=WIDTH,
            freq_dim=64,
            ffn_dim=settings.ffn_dim,
            num_layers=settings.num_layers,
            cross_attn_norm=True,
            rope_max_seq_len=256,
        )


def run_transformer(recipe: ShapesBaseRecipe, folder: Path) -> bool:
    settings = recipe.transformer
    cache = open_cache(folder / "cache")
    held_out = cache.indices(held_out=True)[:HELD_OUT_CLIPS]
    task = FlowTask(
        new_transformer(settings, settings.train.seed),
        WAN,
        null_prompt=cache.null_prompt(),
        held_out=[cache.batch(held_out)],
        flow=settings.flow,
        trainable=("*",),
        info=None,
        seed=settings.train.seed,
        save=lambda transformer, target: save_transformer(transformer, target, None),
    )
    data = CacheData(cache, settings.batch_size, settings.train.seed)
    return fit(task, data, settings.train, folder / "transformer")


def assemble(folder: Path, target: Path, transformer: WanTransformer3DModel, shift: float) -> None:
    """Writes the pipeline's folder, replacing what is there at once. shift: of the noise levels that are sampled."""
    pipeline = WanPipeline(
        tokenizer=make_tokenizer(),
        text_encoder=UMT5EncoderModel.from_pretrained(folder / "text" / "model" / "text_encoder"),
        vae=AutoencoderKLWan.from_pretrained(folder / "decoder" / "model"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        transformer=transformer,
    )
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary)
    replace_folder(temporary, target)
