"""A tiny base pipeline, autoencoder and dataset, and a recipe that adapts the one to the other in seconds."""

import json
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "adaptation"))
from base_folder import autoencoder_folder, base_folder, dataset
from tiny_models import tiny_transformer

from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
from dcvideogen.recipes.recipe import read_recipe

TRAIN = {
    "steps": 4, "learning_rate": 1e-3, "warmup_steps": 0, "precision": "fp32", "ema_decay": 0.5, "log_every": 1,
    "validate_every": 4, "checkpoint_every": 2, "export_every": 4, "tensorboard": False,
}  # fmt: skip


def make_world(folder, experts=1, clips=6):
    """base/ (a Wan pipeline, with two experts if asked for), autoencoder/, data/manifest.jsonl and recipe.yaml."""
    base = base_folder(folder / "base")
    tiny_transformer("wan").save_pretrained(base / "transformer")
    if experts == 2:
        tiny_transformer("wan", seed=5).save_pretrained(base / "transformer_2")
        (base / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", "boundary_ratio": 0.75}))
    autoencoder_folder(folder / "autoencoder")
    dataset(folder / "data", count=clips)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe_values(folder)))
    return folder


def recipe_values(folder):
    stage = {"flow": {"shift": 2.0}, "batch_size": 2, "train": TRAIN}
    return {
        "base": str(folder / "base"),
        "autoencoder": str(folder / "autoencoder"),
        "dtype": "fp32",
        "cache": {
            "source": str(folder / "data" / "manifest.jsonl"), "num_frames": 8, "fps": 16, "held_out": 2,
            "buckets": {"height": 64, "width": 64, "min_aspect": 1, "max_aspect": 1}, "max_sequence_length": 16,
            "stored_dtype": "fp32", "clips_per_shard": 2, "device": "cpu", "null_prompt": "ugly",
        },
        "head": {"draws": 2, "held_out_draws": 2},
        "lora": {"targets": "attention+ffn", "rank": 2, "alpha": 4},
        "stages": [
            {"name": "lora", **stage},
            {"name": "large", "data": {"buckets": {"height": 128, "width": 128}}, **stage},
        ],
    }  # fmt: skip


def read(folder, *overrides):
    return read_recipe(AdaptationRecipe, folder / "recipe.yaml", overrides)
