"""Plans of real sizes are made on meta; nothing is downloaded, run or written."""

import json
import re

import pytest
from tiny_adaptation import make_world, read

from dcvideogen.adaptation.device_speed import journal_seconds
from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_plan import plan_lines
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
from dcvideogen.recipes.recipe import find_recipe, read_recipe


def bundled(name, *overrides):
    return read_recipe(AdaptationRecipe, find_recipe(name), overrides)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_the_plan_of_wan_2_1_has_the_papers_counts_of_parameters_and_tokens():
    text = "\n".join(plan_lines(bundled("wan2.1-t2v-1.3b", "stages=[]"), only="cache"))
    assert "base models/Wan2.1-T2V-1.3B-Diffusers is not there: planned with the published sizes" in text
    assert "base: wan, 1419.00 M parameters, latents f8t4c16, patch 1x2x2" in text
    assert "new: wan, 1418.90 M parameters, latents f32t4c32, patch 1x1x1" in text
    assert "480x832 32760 -> 7800" in text
    assert "1032 TFLOP a clip to encode" in text
    text = "\n".join(plan_lines(bundled("wan2.1-t2v-1.3b"), only="lora"))
    assert "40000 steps of 32 clips" in text
    assert "350.07 M parameters; the transformer has 1418.90 M" in text
    assert re.search(r"estimates for one process, at \S+ TFLOP/s, measured on one linear layer in bf16", text)


@pytest.mark.parametrize(
    ("name", "stage", "expected"),
    [
        ("wan2.1-t2v-1.3b-paper", "head", "6000 steps of 32 clips on both ends"),
        ("wan2.1-t2v-14b", "720p", "1000 steps of 32 clips of up to 18600 tokens"),
        ("wan2.1-i2v-14b", "align", "a system of 69x69"),
        ("wan2.2-t2v-a14b", "export", "transformer for sigma 0.875 to 1, transformer_2 for sigma 0 to 0.875"),
    ],
)
def test_every_bundled_recipe_can_be_planned(name, stage, expected):
    assert expected in "\n".join(plan_lines(bundled(name), only=stage))


def test_a_plan_of_models_that_are_there_speaks_of_every_stage_and_writes_nothing(world, tmp_path):
    text = "\n".join(plan_lines(read(world), tmp_path / "out"))
    for stage in ("cache", "align", "head", "lora", "cache-large", "large", "export"):
        assert f"stage {stage}: " in text
    assert "at most 6 clips of 8 frames" in text
    assert "64x64 48 -> 8" in text
    assert "a system of 17x17" in text
    assert "not there" not in text
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"no stage 'huge'; this recipe has cache, align, head, lora, cache-large"):
        list(plan_lines(read(world), only="huge"))


def test_times_come_from_the_stage_itself_once_it_has_run(world, tmp_path):
    (tmp_path / "lora").mkdir()
    line = json.dumps({"step": 2, "seconds_per_step": 50.0})
    (tmp_path / "lora" / "metrics.jsonl").write_text(f'{line}\n{{"step": 4, "held_out/loss": 1.0}}\n{{"st')
    assert journal_seconds(tmp_path / "lora") == 50
    assert journal_seconds(tmp_path) is None
    text = "\n".join(plan_lines(read(world), tmp_path, only="lora"))
    assert "about 4 min" in text  # 4 steps of 50 s
    assert f"as the stage in {tmp_path / 'lora'} ran (50 s a step)" in text


def test_full_fine_tuning_and_sgd_are_planned_too(world):
    text = "\n".join(
        plan_lines(read(world, "lora=null", "align.solver=sgd", "align.sgd.steps=30", "align.sgd.learning_rate=0.1"))
    )
    assert "trains all weights: 0.0202 M parameters; the transformer has 0.0202 M" in text
    assert "30 steps of 4 clips" in text
    assert "adapter/" not in text


def test_models_that_are_neither_there_nor_published_are_refused():
    with pytest.raises(UserError, match=r"no such folder, and no published model of that name .* wan2\.1-t2v-1\.3b"):
        list(plan_lines(bundled("wan2.1-t2v-1.3b", "base=models/Sora")))
    with pytest.raises(UserError, match=r"no model 'models/best'"):
        list(plan_lines(bundled("wan2.1-t2v-1.3b", "autoencoder=models/best")))
