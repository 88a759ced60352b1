import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes"))
from tiny_adaptation import make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return make_world(tmp_path_factory.mktemp("world"))


def test_the_command_runs_all_stages_says_where_the_result_is_and_goes_on(dcvideogen, world, tmp_path):
    command = ("adapt", world / "recipe.yaml", "-o", tmp_path / "out", "--set", "stages.0.train.steps=2")
    first = dcvideogen(*command, "--stage", "cache")
    assert (first.code, first.out) == (0, f"{tmp_path / 'out' / 'cache'}: done\n")
    assert "6 clips (2 held out, 6 with base latents)" in first.err
    whole = dcvideogen(*command)
    assert whole.code == 0
    assert whole.out == f"{tmp_path / 'out' / 'export'}: adapted\n"
    assert "stage cache: done before" in whole.err
    assert "step 2/2" in whole.err
    assert (tmp_path / "out" / "export" / "transformer" / "adaptation.json").is_file()


def test_a_plan_needs_no_folder_and_a_run_does(dcvideogen, refused, world):
    plan = dcvideogen("adapt", world / "recipe.yaml", "--plan", "--stage", "align")
    assert plan.code == 0
    assert "stage align: trains the patch embedder" in plan.out
    assert "stage head" not in plan.out
    refused("-o is missing; give the folder for the cache", "adapt", world / "recipe.yaml")


def test_mistakes_are_one_line(refused, world, tmp_path):
    recipe, out = world / "recipe.yaml", tmp_path / "out"
    refused("no recipe 'sora'", "adapt", "sora", "-o", out)
    refused("unknown key 'lora.width'", "adapt", recipe, "-o", out, "--set", "lora.width=3")
    refused("no stage 'middle'", "adapt", recipe, "-o", out, "--stage", "middle")
    refused("begins with what 'cache' makes, which is not done", "adapt", recipe, "-o", out, "--stage", "align")
    refused("base models/Wan2.1-T2V-1.3B-Diffusers: no such folder", "adapt", "wan2.1-t2v-1.3b", "-o", out)


def test_a_recipe_of_another_command_is_refused(refused, tmp_path):
    refused("unknown key 'start'", "adapt", "f32t4c32", "-o", tmp_path / "out")
