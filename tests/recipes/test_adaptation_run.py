"""Whole adaptations of a tiny base, left alone, stopped, killed, changed and given bad input."""

import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from tiny_adaptation import make_world, read
from tiny_models import tiny_wan_i2v

from dcvideogen.adaptation.adapter_folder import load_adapter
from dcvideogen.adaptation.folder import load_base, load_transformer
from dcvideogen.errors import UserError
from dcvideogen.pipelines.loading import load_pipeline
from dcvideogen.recipes.adaptation import run_adaptation
from dcvideogen.training.checkpoint import find_checkpoints

SGD = "{steps: 2, learning_rate: 0.001, precision: fp32, tensorboard: false, warmup_steps: 0}"
STAGES = ("cache", "align", "head", "lora", "cache-large", "large", "export")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """All stages, once."""
    folder = tmp_path_factory.mktemp("run") / "out"
    assert run_adaptation(read(world), folder)
    return folder


def copy_of(run, folder):
    shutil.copytree(run, folder)
    return folder


def results(folder):
    """Every tensor that a run has made for its users."""
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted((folder / "export").rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_ends_with_a_transformer_an_adapter_lora_files_and_a_card(world, run):
    export = run / "export"
    assert sorted(path.name for path in export.iterdir()) == ["README.md", "adapter", "lora", "run.json", "transformer"]
    tuned, info = load_transformer(export / "transformer")
    assert (info.latent_channels, info.spatial_ratio, info.temporal_ratio, info.family) == (16, 32, 4, "wan")
    assert tuned.config.in_channels == 16
    base, backbone = load_base(world / "base")
    adapted, _ = load_adapter(base, backbone, export / "adapter")
    weights = adapted.state_dict()
    assert max((weights[name] - value).abs().max() for name, value in tuned.state_dict().items()) < 0.02  # bf16
    moved = [name for name, value in base.state_dict().items() if not torch.equal(value, weights[name])
             and value.shape == weights[name].shape]  # fmt: skip
    assert "blocks.0.attn1.to_q.weight" in moved
    assert "blocks.0.attn1.norm_q.weight" not in moved
    assert "lora: 4 steps" in (export / "README.md").read_text().replace(" | ", ": ")


def test_every_stage_writes_down_its_settings_and_what_it_was_begun_with(run):
    record = json.loads((run / "run.json").read_text())
    assert record["command"] == "adapt"
    assert list(record["stages"]) == list(STAGES)
    assert all(stage["done"] for stage in record["stages"].values())
    assert record["stages"]["large"]["metrics"]["held_out/loss"] > 0
    align = json.loads((run / "align" / "run.json").read_text())
    cache = json.loads((run / "cache" / "run.json").read_text())
    assert align["begun_with"]["cache"] == cache["result"]
    assert align["stage"]["positions"] == "integer"
    assert (run / "align" / "align.json").is_file()
    assert (run / "head" / "head.json").is_file()


def test_a_run_that_is_done_says_so(world, run, caplog):
    caplog.set_level(logging.INFO, logger="dcvideogen")
    before = results(run)
    assert run_adaptation(read(world), run)
    assert [r.message for r in caplog.records] == [f"stage {stage}: done before" for stage in STAGES]
    assert same(before, results(run))


def test_stopped_anywhere_it_goes_on_to_the_same_result_bit_for_bit(world, run, tmp_path):
    out = tmp_path / "out"
    assert not run_adaptation(read(world), out, stop_at=("lora", 3))
    assert not (out / "cache-large").exists()
    assert not json.loads((out / "run.json").read_text())["stages"]["lora"]["done"]
    assert not run_adaptation(read(world), out, stop_at=("large", 1))
    assert run_adaptation(read(world), out)
    assert same(results(run), results(out))


def test_each_stage_alone_gives_the_same_and_needs_the_ones_before(world, run, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"stage 'head' begins with what 'align' makes, which is not done in .*--stage"):
        run_adaptation(read(world), out, only="head")
    for stage in STAGES:
        assert run_adaptation(read(world), out, only=stage)
        assert (out / stage / "run.json").is_file()
    assert same(results(run), results(out))
    with pytest.raises(UserError, match=r"no stage 'last'; this recipe has cache, align, head, lora, cache-large"):
        run_adaptation(read(world), out, only="last")


def test_a_run_that_is_killed_at_random_moments_ends_as_if_left_alone(world, run, tmp_path):
    code = "import sys; from dcvideogen.cli.main import run; sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "adapt", str(world / "recipe.yaml"), "-o", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    draw, out, hits = random.Random(0), tmp_path / "out", 0
    for stage in ("align/run.json", "lora/checkpoints"):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        deadline = time.monotonic() + 120
        while not (out / stage).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05 * draw.random())
        hits += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert hits
    assert run_adaptation(read(world), out)
    assert same(results(run), results(out))


def test_a_changed_early_stage_makes_later_ones_refuse_and_says_what_to_delete(world, run, tmp_path):
    out = copy_of(run, tmp_path / "out")
    with pytest.raises(
        UserError,
        match=r"stage 'align' in .* was begun with positions integer, which is base_grid now; delete .*/align, .*/head,"
        r" .*/lora, .*/large",
    ):
        run_adaptation(read(world, "positions=base_grid"), out)
    with pytest.raises(UserError, match=r"make another cache, and .*/align.* came from what is there; delete .*/align"):
        run_adaptation(read(world, "cache.max_sequence_length=12"), out)
    with pytest.raises(UserError, match=r"stage 'lora' would run again with other settings, and .*/large came from"):
        run_adaptation(read(world, "stages.lora.train.steps=5"), out)
    with pytest.raises(UserError, match=r"stage 'lora' in .* was begun with lora\.rank 2, which is 3 now"):
        run_adaptation(read(world, "lora.rank=3"), out)
    assert same(results(run), results(out))
    for stage in ("head", "lora", "large"):
        shutil.rmtree(out / stage)
    assert run_adaptation(read(world, "head.draws=3"), out)
    assert not same(results(run), results(out))


def test_another_base_is_noticed(world, run, tmp_path):
    out, base = copy_of(run, tmp_path / "out"), copy_of(world / "base", tmp_path / "base")
    assert run_adaptation(read(world, f"base={base}"), out)  # the same in another place
    other, _ = load_base(base)
    other.patch_embedding.bias.data += 1
    other.save_pretrained(base / "transformer")
    with pytest.raises(UserError, match=r"stage 'align' in .* was begun with another base than there is now"):
        run_adaptation(read(world, f"base={base}"), out)


def test_another_autoencoder_is_noticed_and_a_cache_of_another_is_refused_by_name(world, run, tmp_path):
    out, autoencoder = copy_of(run, tmp_path / "out"), copy_of(world / "autoencoder", tmp_path / "autoencoder")
    config = json.loads((autoencoder / "config.json").read_text())
    (autoencoder / "config.json").write_text(json.dumps({**config, "latent_space_id": "elsewhere"}))
    recipe = read(world, f"autoencoder={autoencoder}")
    with pytest.raises(UserError, match=r"the settings or the files of stage 'cache' make another cache, and .*/align"):
        run_adaptation(recipe, out)
    shutil.rmtree(out / "align")
    record = json.loads((out / "cache" / "run.json").read_text())
    record["stage"]["latent_space_id"] = "elsewhere"  # a cache that was put there by hand
    (out / "cache" / "run.json").write_text(json.dumps(record))
    with pytest.raises(
        UserError, match=rf"holds latents of the space {config['latent_space_id']}; elsewhere is needed"
    ):
        run_adaptation(recipe, out, only="align")


def test_a_last_stage_may_get_more_steps(world, run, tmp_path):
    out = copy_of(run, tmp_path / "out")
    assert run_adaptation(read(world, "stages.large.train.steps=6"), out)
    assert find_checkpoints(out / "large" / "checkpoints")[-1].name == "step-00000006"
    assert not same(results(run), results(out))


def test_all_weights_can_be_trained_with_positions_of_the_base_and_both_ends_by_gradient(world, run, tmp_path):
    recipe = read(
        world, "lora=null", "positions=base_grid", "align.solver=sgd", f"align.sgd={SGD}", "head.solver=none",
        f"head.sgd={SGD}", "head.sgd_batch_size=2", "export.full_rank=2",
    )  # fmt: skip
    out = tmp_path / "out"
    for stage in ("cache", "cache-large"):
        shutil.copytree(run / stage, out / stage)
    assert run_adaptation(recipe, out)
    tuned, info = load_transformer(out / "export" / "transformer")
    assert (info.positions, info.position_ratio) == ("base_grid", (1, 2, 2))
    base, _ = load_base(world / "base")
    assert not torch.equal(tuned.blocks[0].attn1.norm_q.weight, base.blocks[0].attn1.norm_q.weight)
    assert (out / "export" / "lora" / "diffusers.safetensors").is_file()


def test_frozen_weights_in_bf16_keep_the_trained_ones_in_fp32_from_stage_to_stage(world, run, tmp_path):
    changes = ["dtype=bf16", "head.sgd_batch_size=2", f"head.sgd={SGD}", "head.sgd.precision=bf16"]
    changes += [f"stages.{n}.train.{key}" for n in (0, 1) for key in ("precision=bf16", "gradient_checkpointing=true")]
    out = tmp_path / "out"
    for stage in ("cache", "cache-large"):
        shutil.copytree(run / stage, out / stage)
    assert run_adaptation(read(world, *changes), out)
    for stage in ("align/adapter", "head/adapter", "lora/model", "large/model"):
        ends = load_file(out / stage / "ends.safetensors")
        assert not torch.equal(*(ends["patch_embedding.weight"].to(d).float() for d in (torch.bfloat16, torch.float32)))
    assert (out / "head" / "metrics.jsonl").is_file()


def test_an_image_to_video_base_is_adapted_with_its_condition(tmp_path):
    world = make_world(tmp_path / "world")
    tiny_wan_i2v().save_pretrained(world / "base" / "transformer")
    changes = ("cache.image_to_video=true", "cache.image_condition=alone", "stages.1.data=null")
    assert run_adaptation(read(world, *changes), tmp_path / "out")
    tuned, info = load_transformer(tmp_path / "out" / "export" / "transformer")
    assert tuned.config.in_channels == 16 + 4 + 16
    assert info.image_condition == "alone"
    assert json.loads((tmp_path / "out" / "align" / "align.json").read_text())["condition_loss"] is not None


def test_a_base_without_channels_for_an_image_is_given_the_images_latent(world, tmp_path):
    changes = ("cache.image_to_video=true", "cache.image_condition=alone", "stages.1.data=null")
    with pytest.raises(UserError, match=r"in place of its first latent alone; set first_latent to given and cache\.im"):
        run_adaptation(read(world, *changes), tmp_path / "out")
    assert run_adaptation(read(world, *changes, "first_latent=given"), tmp_path / "out")
    tuned, info = load_transformer(tmp_path / "out" / "export" / "transformer")
    assert (tuned.config.in_channels, info.first_latent) == (16, "given")
    assert json.loads((tmp_path / "out" / "align" / "align.json").read_text())["condition_loss"] is None
    pipeline = load_pipeline(
        world / "base", adapter=tmp_path / "out" / "export" / "adapter", autoencoder=world / "autoencoder"
    )
    assert pipeline.tasks == ("i2v", "t2v")


def test_without_stages_the_two_ends_are_exported(world, run, tmp_path):
    out = tmp_path / "out"
    for stage in ("cache", "align", "head"):
        shutil.copytree(run / stage, out / stage)
    assert run_adaptation(read(world, "stages=[]"), out)
    tuned, _ = load_transformer(out / "export" / "transformer")
    base, _ = load_base(world / "base")
    assert torch.equal(tuned.blocks[0].ffn.net[2].weight, base.blocks[0].ffn.net[2].weight.bfloat16().float())
    assert not (out / "export" / "lora").exists()
    assert (out / "export" / "adapter" / "ends.safetensors").is_file()


def test_two_experts_are_adapted_each_in_its_range_of_noise(run, tmp_path):
    world = make_world(tmp_path / "world", experts=2)
    out = tmp_path / "out"
    assert run_adaptation(read(world, "stages.1.data=null"), out)
    losses = [
        set(json.loads((out / "lora" / expert / "metrics.jsonl").read_text().splitlines()[-1]))
        for expert in ("transformer", "transformer_2")
    ]
    assert "held_out/loss_at_0.781" in losses[0]  # of 0.75 to 1
    assert "held_out/loss_at_0.0938" in losses[1]  # of 0 to 0.75
    for expert in ("transformer", "transformer_2"):
        assert load_transformer(out / "export" / expert)[1] is not None
        assert (out / "export" / "adapter" / expert / "adapter.json").is_file()
    assert "head/transformer_2" in json.loads((out / "run.json").read_text())["stages"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["base=nowhere"], r"base nowhere: no such folder"),
        (["autoencoder=nowhere"], r"no model 'nowhere'"),
        (["patch_size=[1, 4, 4]"], r"clips of 64x64 pixels do not fill whole patches of 128x128 pixels; set cache"),
        (["patch_size=[4, 1, 1]"], r"cache\.num_frames 8 came; multiples of 16 are allowed"),
        (["cache.buckets.multiple=48"], r"cache\.buckets\.multiple 48 came; multiples of 32 are allowed"),
        (["lora.targets=everything"], r"LoRA targets 'everything' came; wan has attention\+ffn"),
        (["stages.0.batch_size=3", "stages.0.train.accumulate=2"], r"stage 'lora': a batch of 3 clips cannot be cut"),
    ],
)  # fmt: skip
def test_mistakes_are_told_before_anything_is_read(world, tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        run_adaptation(read(world, *overrides), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bases_that_are_none_are_refused(world, tmp_path):
    base = copy_of(world / "base", tmp_path / "base")
    recipe = read(world, f"base={base}")
    config = json.loads((base / "transformer" / "config.json").read_text())
    (base / "transformer" / "config.json").write_text(json.dumps({**config, "in_channels": 12}))
    with pytest.raises(
        UserError, match=r"the base is given an image .* cache\.image_to_video is false; set it to true"
    ):
        run_adaptation(recipe, tmp_path / "out")
    (base / "transformer" / "config.json").write_text(json.dumps({**config, "_class_name": "SoraTransformer"}))
    with pytest.raises(UserError, match=r"a transformer of class SoraTransformer came; known: WanTransformer3DModel"):
        run_adaptation(recipe, tmp_path / "out")
    (base / "transformer" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json: cannot be read .*; give a complete pipeline folder"):
        run_adaptation(recipe, tmp_path / "out")
    shutil.rmtree(base / "transformer")
    with pytest.raises(UserError, match=r"has no transformer/; a base is a pipeline's folder"):
        run_adaptation(recipe, tmp_path / "out")


def test_a_dataset_without_a_usable_clip_and_one_without_held_out_clips_are_refused(world, tmp_path):
    with pytest.raises(UserError, match=r"no usable clip \(6 left out: .*too short"):
        run_adaptation(read(world, "cache.num_frames=16"), tmp_path / "short")
    with pytest.raises(UserError, match=r"fit on and 0 held out; at least 2 and 1 are needed"):
        run_adaptation(read(world, "cache.held_out=0"), tmp_path / "none")


def test_a_loss_that_is_no_number_stops_the_stage_and_keeps_what_was_trained(world, run, tmp_path):
    out = copy_of(run, tmp_path / "out")
    for stage in ("lora", "large", "export"):
        shutil.rmtree(out / stage)
    wild = [f"stages.0.train.{key}" for key in ("learning_rate=1e30", "clip_norm=1e30", "max_nonfinite=1", "steps=40")]
    with pytest.raises(UserError, match=r"steps had a loss or gradient that is not finite.*lower train\.learning_rate"):
        run_adaptation(read(world, *wild), out)
    assert not json.loads((out / "lora" / "run.json").read_text())["done"]


def test_a_full_disk_is_one_line_and_nothing_that_was_there_is_lost(world, run, tmp_path, monkeypatch):
    from dcvideogen.cli.main import run as run_command

    out = copy_of(run, tmp_path / "out")
    before = results(out)
    for stage in ("large", "export"):
        (out / stage / "run.json").unlink()
    full = OSError(28, "No space left on device", str(out / "large" / "run.json"))

    def refuse(*_):
        raise full

    monkeypatch.setattr("dcvideogen.recipes.adaptation.write_stage", refuse)
    assert run_command(["adapt", str(world / "recipe.yaml"), "-o", str(out)]) == 2
    monkeypatch.undo()
    assert run_adaptation(read(world), out)
    assert same(before, results(out))
