"""Makes the shapes world's base model: a text-to-video pipeline in diffusers' own classes, trained from random weights.

Its folder is a diffusers WanPipeline: byte-level UMT5, causal f8t4c16 AutoencoderKLWan, WanTransformer3DModel with
patches of 1 x 2 x 2. It plays the part of the pretrained model that is adapted.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor
from transformers import UMT5EncoderModel

from dcvideogen.adaptation.backbone_wan import WAN
from dcvideogen.adaptation.cache import build_cache, open_cache
from dcvideogen.adaptation.cache_data import CacheData
from dcvideogen.adaptation.cache_settings import BucketSettings
from dcvideogen.adaptation.flow_matching import FlowTask
from dcvideogen.adaptation.folder import load_base, save_transformer
from dcvideogen.adaptation.lora import add_lora, merged_copy
from dcvideogen.adaptation.surgery import add_condition
from dcvideogen.data.shapes import plan_clips, render
from dcvideogen.errors import UserError
from dcvideogen.files import whole_folder
from dcvideogen.recipes.shapes_base_recipe import ShapesBaseRecipe, TransformerSettings, VaeSettings
from dcvideogen.recipes.shapes_base_text import WIDTH, Captions, TextTask, make_text_encoder, make_tokenizer
from dcvideogen.recipes.shapes_base_vae import CHANNELS, BlockComponents, RenderedCrops, VaeTask, make_vae
from dcvideogen.shapes_world import Combination, combinations
from dcvideogen.training.loop import fit
from dcvideogen.weights import resolve_pipeline

log = logging.getLogger(__name__)

COMPONENT_CLIPS = 64
HELD_OUT_COMBINATIONS = 12
HELD_OUT_CLIPS = 32
# Seeds of clips that no training sees.
HELD_OUT_SEED = 2**31
COMPONENT_SEED = 5


def train_shapes_base(recipe: ShapesBaseRecipe, folder: Path, *, workers: int = 1) -> bool:
    """Runs all stages, or goes on with the run in `folder`; True when folder/pipeline is done. A signal stops it."""
    folder.mkdir(parents=True, exist_ok=True)
    if recipe.start is None:
        if not run_text(recipe, folder) or not all(run_vae(recipe, index, folder) for index in range(len(recipe.vae))):
            return False
        text_encoder = folder / "text" / "model" / "text_encoder"
        vae = vae_folder(folder, len(recipe.vae) - 1) / "model"
    else:
        text_encoder, vae = (resolve_pipeline(recipe.start) / name for name in ("text_encoder", "vae"))
    stages, shift = recipe.transformer.stages, recipe.transformer.stages[-1].flow.shift
    # The cache wants a whole pipeline.
    assemble(text_encoder, vae, first_transformer(recipe), shift, folder / "parts")
    if not all(run_transformer(recipe, index, folder, workers) for index in range(len(stages))):
        return False
    transformer = WanTransformer3DModel.from_pretrained(transformer_folder(folder, len(stages) - 1) / "model")
    assemble(text_encoder, vae, transformer, shift, folder / "pipeline")
    return True


def run_text(recipe: ShapesBaseRecipe, folder: Path) -> bool:
    captions = Captions(recipe.text_batch_size, recipe.text.seed)
    return fit(TextTask(make_text_encoder(recipe.text.seed), captions), captions, recipe.text, folder / "text")


def vae_folder(folder: Path, index: int) -> Path:
    return folder / f"vae-{index}"


def run_vae(recipe: ShapesBaseRecipe, index: int, folder: Path) -> bool:
    """The index-th stage of the autoencoder, from what the one before it made."""
    settings = recipe.vae[index]
    if index:
        vae = AutoencoderKLWan.from_pretrained(vae_folder(folder, index - 1) / "model")
    else:
        vae = make_vae(settings.train.seed)
    return fit_vae(settings, vae, vae_folder(folder, index))


def fit_vae(settings: VaeSettings, vae: AutoencoderKLWan, folder: Path) -> bool:
    size = settings.clip_size

    def clip(combination: Combination, seed: int) -> Tensor:
        return render(combination, seed, size=size)[:, 3:]

    sample = [clip(plan.combination, plan.seed) for plan in plan_clips("train", COMPONENT_CLIPS, COMPONENT_SEED)]
    step = len(combinations("test")) // HELD_OUT_COMBINATIONS
    held_out = [clip(combination, HELD_OUT_SEED)[None] for combination in combinations("test")[::step]]
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
        clip_size=size,
        seed=settings.train.seed,
    )
    return fit(task, data, settings.train, folder)


def first_transformer(recipe: ShapesBaseRecipe) -> WanTransformer3DModel:
    """What the first stage begins with. UserError: `start` has none of this class."""
    if recipe.start is None:
        return new_transformer(recipe.transformer, recipe.transformer.stages[0].train.seed)
    transformer, _ = load_base(resolve_pipeline(recipe.start))
    if not isinstance(transformer, WanTransformer3DModel):
        raise UserError(f"start {recipe.start} has a {type(transformer).__name__}; a WanTransformer3DModel is allowed")
    if recipe.cache.image_to_video and not WAN.condition_channels(transformer.config):
        return add_condition(transformer, WAN)
    return transformer


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


def transformer_folder(folder: Path, index: int) -> Path:
    return folder / f"transformer-{index}"


def run_transformer(recipe: ShapesBaseRecipe, index: int, folder: Path, workers: int) -> bool:
    """The index-th stage of the transformer, from what the one before it made, on a cache of its own size."""
    stage = recipe.transformer.stages[index]
    buckets = BucketSettings(height=stage.size, width=stage.size)
    changes = {"source": recipe.clips, "base": folder / "parts", "autoencoder": None, "buckets": buckets}
    report = build_cache(recipe.cache.model_copy(update=changes), folder / f"cache-{stage.size}", workers=workers)
    cache = open_cache(report.folder)
    if index:
        transformer = WanTransformer3DModel.from_pretrained(transformer_folder(folder, index - 1) / "model")
    else:
        transformer = first_transformer(recipe)
    lora = recipe.transformer.lora
    trainable = ("*",) if lora is None else add_lora(transformer, WAN, lora, stage.train.seed)
    task = FlowTask(
        transformer,
        WAN,
        null_prompt=cache.null_prompt(),
        held_out=[cache.batch(cache.indices(held_out=True)[:HELD_OUT_CLIPS])],
        flow=stage.flow,
        trainable=trainable,
        info=None,
        seed=stage.train.seed,
        save=lambda trained, target: save_transformer(merged_copy(trained, torch.float32), target, None),
    )
    data = CacheData(cache, stage.batch_size, stage.train.seed)
    return fit(task, data, stage.train, transformer_folder(folder, index))


def assemble(text_encoder: Path, vae: Path, transformer: WanTransformer3DModel, shift: float, target: Path) -> None:
    """Writes the pipeline's folder, replacing what is there at once. text_encoder, vae: folders of the parts.

    shift: of the noise levels that are sampled. Autoencoder and transformer are stored in 16 bits, to be small.
    """
    image_to_video = WAN.condition_channels(transformer.config) > 0
    pipeline = (WanImageToVideoPipeline if image_to_video else WanPipeline)(
        tokenizer=make_tokenizer(),
        text_encoder=UMT5EncoderModel.from_pretrained(text_encoder),
        vae=AutoencoderKLWan.from_pretrained(vae).half(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        transformer=transformer.bfloat16(),
    )
    for component in (pipeline.vae, pipeline.transformer):
        component.register_to_config(_name_or_path="")  # a path of this machine says nothing to others
    with whole_folder(target) as temporary:
        pipeline.save_pretrained(temporary)
