import json

import pytest
import torch
from diffusers import WanPipeline
from safetensors.torch import load_file

from dcvideogen.data.shapes_files import ShapesSettings, write_clips
from dcvideogen.errors import UserError
from dcvideogen.recipes.recipe import find_recipe, read_recipe
from dcvideogen.recipes.shapes_base import train_shapes_base
from dcvideogen.recipes.shapes_base_recipe import ShapesBaseRecipe
from dcvideogen.recipes.shapes_base_text import CaptionReader, Captions, make_text_encoder
from dcvideogen.recipes.shapes_base_vae import BlockComponents, RenderedCrops, VaeTask, make_vae
from dcvideogen.shapes_world import caption, combinations
from dcvideogen.weights import bundled_pipelines

SHORT = {"steps": 2, "warmup_steps": 0, "log_every": 1, "validate_every": 2, "checkpoint_every": 2, "export_every": 2}
SMALL = [
    *(f"text.{key}={value}" for key, value in SHORT.items()),
    *(f"vae.{index}.train.{key}={value}" for index in range(2) for key, value in SHORT.items()),
    *(f"vae.{index}.{key}" for index in range(2) for key in ("size=16", "clip_size=32", "num_frames=5")),
    *(f"vae.{index}.batch_size=2" for index in range(2)),
    *(f"transformer.stages.{index}.train.{key}={value}" for index in range(4) for key, value in SHORT.items()),
    *(f"transformer.stages.{index}.batch_size=2" for index in range(4)),
    *(f"transformer.stages.{index}.size={size}" for index, size in enumerate((32, 32, 64, 64))),
    "transformer.num_layers=1", "cache.held_out=2",
]  # fmt: skip


def small_recipe(tmp_path, *changes):
    clips = tmp_path / "shapes"
    write_clips(clips, 6, ShapesSettings("train", 0, 64, 32))
    changes = [f"clips={clips / 'manifest.jsonl'}", *SMALL, *changes]
    recipe = read_recipe(ShapesBaseRecipe, find_recipe("shapes-base"), changes)
    transformer = recipe.transformer.model_copy(update={"stages": recipe.transformer.stages[:4]})
    return recipe.model_copy(update={"vae": recipe.vae[:2], "transformer": transformer})  # those that are shortened


def test_the_whole_base_is_trained_resumed_and_runs_in_plain_diffusers(tmp_path):
    recipe, out = small_recipe(tmp_path), tmp_path / "out"
    assert train_shapes_base(recipe, out)
    weights = out / "pipeline" / "transformer" / "diffusion_pytorch_model.safetensors"
    assert not any(str(tmp_path) in path.read_text() for path in (out / "pipeline").rglob("*.json"))
    before = weights.read_bytes()
    assert train_shapes_base(recipe, out)  # all done before
    assert weights.read_bytes() == before
    pipeline = WanPipeline.from_pretrained(out / "pipeline", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    frames = pipeline(
        caption(combinations("test")[0]), height=32, width=32, num_frames=5, num_inference_steps=2,
        max_sequence_length=64, output_type="pt",
    ).frames  # fmt: skip
    assert frames.shape == (1, 5, 3, 32, 32)
    assert frames.isfinite().all()


@pytest.mark.parametrize(
    ("name", "pipeline", "channels"),
    [("shapes-base-further", "WanPipeline", 16), ("shapes-i2v-base", "WanImageToVideoPipeline", 36)],
)
def test_a_bundled_base_is_trained_further_in_its_own_latents(tmp_path, name, pipeline, channels):
    clips = tmp_path / "shapes"
    write_clips(clips, 6, ShapesSettings("train", 0, 64, 32))
    changes = [f"transformer.stages.0.train.{key}={value}" for key, value in SHORT.items()]
    changes += ["transformer.stages.0.size=32", "transformer.stages.0.batch_size=2", "cache.held_out=2"]
    changes.append(f"clips={clips / 'manifest.jsonl'}")
    recipe = read_recipe(ShapesBaseRecipe, find_recipe(name), changes)
    out, start = tmp_path / "out", bundled_pipelines()["shapes-base"]
    assert train_shapes_base(recipe, out)
    for part in ("text_encoder", "vae", "transformer"):
        before, after = (load_file(next((folder / part).glob("*.safetensors"))) for folder in (start, out / "pipeline"))
        changed = [key for key, tensor in before.items() if not torch.equal(tensor, after[key])]
        assert bool(changed) == (part == "transformer"), (part, changed)
    assert json.loads((out / "pipeline" / "model_index.json").read_text())["_class_name"] == pipeline
    assert json.loads((out / "pipeline" / "transformer" / "config.json").read_text())["in_channels"] == channels


def test_parts_are_made_or_started_from_not_both(tmp_path):
    with pytest.raises(UserError, match="leave them out"):
        read_recipe(ShapesBaseRecipe, find_recipe("shapes-base"), ["start=shapes-base"])
    with pytest.raises(UserError, match="without start, text and vae are needed"):
        read_recipe(ShapesBaseRecipe, find_recipe("shapes-base-further"), ["start=null"])
    recipe = read_recipe(ShapesBaseRecipe, find_recipe("shapes-base-further"), [f"start={tmp_path}"])
    with pytest.raises(UserError, match="has no transformer/"):
        train_shapes_base(recipe, tmp_path / "out")


def test_components_keep_plain_blocks_and_have_unit_variance():
    from dcvideogen.data.shapes import render

    chosen = combinations("train")[::40]
    videos = torch.stack([render(one, number, size=64)[:, 3:] for number, one in enumerate(chosen)])
    components = BlockComponents(videos)
    found = components(videos)
    assert found.shape == (len(chosen), 16, 8, 8, 8)
    torch.testing.assert_close(found.var(dim=(0, 2, 3, 4), correction=0), torch.ones(16), atol=1e-3, rtol=0)
    # The transform is orthogonal but for its scales, so that 16 of 768 numbers must hold nearly all of the variance.
    blocks = components.blocks(videos) - components.mean[:, None, None, None]
    lengths = components.scaled.square().sum(0)[:, None, None, None]
    kept = torch.einsum("ncthw,bc->nbthw", found / lengths, components.scaled)
    assert (blocks - kept).square().mean() < 0.04 * blocks.square().mean()


def test_the_decoder_stage_leaves_the_encoder_as_it_is():
    data = RenderedCrops(batch_size=2, num_frames=5, size=16, clip_size=32)
    videos = data.batch(0, 0, 1).videos
    task = VaeTask(make_vae(0), BlockComponents(videos), [videos[:1]], decoder_only=True, seed=0)
    task.losses(data.batch(1, 0, 1), 1)["vae"].backward()
    encoder = [p.grad for name, p in task.vae.named_parameters() if name.startswith(("encoder", "quant_conv"))]
    decoder = [p.grad for name, p in task.vae.named_parameters() if name.startswith(("decoder", "post_quant"))]
    assert all(gradient is None for gradient in encoder)
    assert any(gradient is not None and gradient.any() for gradient in decoder)


def test_parts_of_a_batch_of_crops_are_the_whole_one():
    data = RenderedCrops(batch_size=4, num_frames=5, size=16, clip_size=32)
    whole = data.batch(3, 0, 1).videos
    assert torch.equal(torch.cat([data.batch(3, part, 2).videos for part in range(2)]), whole)
    assert not torch.equal(data.batch(4, 0, 1).videos, whole)


def test_the_reader_has_logits_for_each_value_of_each_attribute():
    batch = Captions(3, 0).batch(0, 0, 1)
    logits = CaptionReader(make_text_encoder(0))(batch.ids, batch.mask)
    assert [row.shape for row in logits] == [(3, 2), (3, 6), (3, 3), (3, 5), (3, 3)]
