"""Every command line of the documentation is one that the program takes, and runs, or says why it is not run here."""

import importlib
import json
import re
import shutil
import subprocess
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
import yaml
from docs_pages import DOCS, README, ROOT, blocks_of, command_lines, commands_of, name_of, named_commands
from typer.main import get_command

from dcvideogen.cli.main import app, run
from dcvideogen.data.settings import BatchSettings, DataSettings
from dcvideogen.evaluation.vbench_scores import T2V_SUITE
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
from dcvideogen.recipes.recipe import AutoencoderRecipe, read_recipe
from dcvideogen.training.loss_settings import LossSettings
from dcvideogen.video import probe, write_video

PAGES = [README, *DOCS]
SHELL = [block for page in PAGES for block in blocks_of(page) if block.language == "sh"]
RUN_HERE = [page for page in DOCS if any(block.page == page and block.mark is None for block in SHELL)]
YAML = [block for page in PAGES for block in blocks_of(page) if block.language == "yaml"]
OPTION = re.compile(r"--[a-z][a-z0-9-]*")
PYTHON = [block for page in PAGES for block in blocks_of(page) if block.language == "python"]


def leaf(arguments):
    """The command that arguments lead to, through groups such as `data`, and what is left of them."""
    command, left = get_command(app), list(arguments)
    while hasattr(command, "commands"):
        assert left, f"{arguments} ends where a command is needed"
        assert left[0] in command.commands, f"{left[0]!r} of {arguments} is no command"
        command = command.commands[left.pop(0)]
    return command, left


def all_commands(command):
    """The command, or all those of a group."""
    members = getattr(command, "commands", {}).values()
    return [one for member in members for one in all_commands(member)] or [command]


def options_of(command):
    return {"--help"} | {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_program_takes_every_command_line(page):
    """Its options are known, what they need is there, and no required argument is missing."""
    for arguments in commands_of(page):
        command, left = leaf(arguments)
        command.make_context("dcvideogen", left)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_the_text_exist_with_their_options(page):
    for arguments in named_commands(page):
        known = get_command(app).commands
        if len(arguments) == 1:
            assert arguments[0] in known, arguments
            continue
        command, left = leaf(arguments)
        assert {word for word in left if word.startswith("-")} <= options_of(command), arguments


@pytest.mark.parametrize("block", SHELL, ids=str)
def test_every_shell_block_is_run_or_says_why_not(block):
    if block.mark is None:
        programs = {words[0] for words in command_lines(block.text)}
        assert programs <= {"dcvideogen", "make"}, f"{block} needs a mark: only these two are run here"
        return
    kind, words = block.mark
    if kind == "not run":
        assert words.startswith("needs "), f"{block}: say what it needs, as real models or several machines"
    else:
        assert (ROOT / words).is_file(), f"{block}: {words} is no test"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_python_block_compiles_and_imports_what_is_there(block):
    compile(block.text, str(block), "exec")
    for module, names in re.findall(r"^from (dcvideogen\S*) import ([\w, ]+)", block.text, flags=re.MULTILINE):
        for name in names.split(","):
            assert hasattr(importlib.import_module(module), name.strip()), f"{block}: {module} has no {name}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_text_exist(page):
    """Of some command, or of a study in benchmarks/, where each setting is one."""
    known = {name for command in all_commands(get_command(app)) for name in options_of(command)}
    for study in (ROOT / "benchmarks").glob("*_study.py"):
        settings = re.findall(r"^    (\w+): ", study.read_text(), flags=re.MULTILINE)
        known |= {f"--{setting.replace('_', '-')}" for setting in settings}
    assert set(re.findall(rf"`({OPTION.pattern})", page.read_text())) <= known


@pytest.mark.parametrize("block", YAML, ids=str)
def test_settings_in_recipes_are_those_of_the_program(block, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(block.text)
    values = yaml.safe_load(block.text)
    if "base" in values:
        read_recipe(AdaptationRecipe, path)
    elif "start" in values:
        read_recipe(AutoencoderRecipe, path)
    else:  # parts of one
        parts = {"data": DataSettings, "loss": LossSettings}
        for name, part in values.items():
            for settings in (
                [parts[name](**part)] if name in parts else [BatchSettings(**b) for b in part[0]["batches"]]
            ):
                assert settings.model_fields_set


def film(seed, frames):
    """A picture that moves to the right."""
    picture = torch.rand(1, 3, 8, 10, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    picture = torch.nn.functional.interpolate(picture, (96, 120), mode="bilinear")[:, :, None]
    return torch.cat([picture.roll(3 * frame, dims=4) for frame in range(frames)], dim=2)


def fill(folder):
    """Clips of one's own, which the documentation takes to be there."""
    for name, count, frames in (("holiday", 2, 16), ("held-out", 1, 8), ("others", 2, 8)):
        (folder / name).mkdir()
        for index in range(count):
            write_video(folder / name / f"day{index}.mp4", film(index, frames), Fraction(24))
    ramp = torch.linspace(-1, 1, 64).expand(1, 3, 13, 48, 64)
    write_video(folder / "holiday.mp4", ramp * torch.linspace(0.5, 1, 13).view(13, 1, 1), Fraction(25))


def fill_results(folder):
    """What VBench wrote."""
    for name, dimensions in (("base", T2V_SUITE.names), ("adapted", ["scene"])):
        (folder / "results" / name).mkdir(parents=True)
        results = {dimension: [0.5, []] for dimension in dimensions}
        (folder / "results" / name / "all_eval_results.json").write_text(json.dumps(results))


def shortened(arguments):
    """A training of hours, or a measurement of minutes, as one of seconds."""
    if arguments[:2] == ["shapes", "render"]:
        return [*arguments[:-1], "12"]
    if arguments[0] == "adapt" and "--plan" not in arguments:
        return [*arguments, "--set", "stages.lora.train.steps=1", "--set", "cache.held_out=2", "--set", "head.draws=1"]
    if arguments[0] == "evaluate":
        small = ["64" if option in ("--height", "--width") else word for option, word in pairwise(["", *arguments])]
        return [*small, "--num-frames", "8"]
    if arguments[0] != "train-autoencoder":
        return arguments
    for stage in ("low-resolution", "high-resolution"):
        arguments = [
            *arguments,
            *("--set", f"stages.{stage}.train.steps=1"),
            *("--set", f"stages.{stage}.batches=[{{num_frames: 8, size: 32, chunk_frames: 4}}]"),
        ]
    return arguments


def without_paths(words):
    """A command line without the values of the options that only say where files are."""
    options = ("-o", "--data", "--model", "--pca-data")
    return tuple(word for before, word in pairwise(["", *words]) if before not in options)


def run_page(page, known=()):
    """Runs the page's unmarked `dcvideogen` lines here, but for those that are known; the lines that ran, so known."""
    ran = set()
    for block in (block for block in SHELL if block.page == page and block.mark is None):
        for words in command_lines(block.text):
            if words[0] == "dcvideogen" and without_paths(words) not in known:
                assert run(shortened(words[1:])) == 0, f"{block}: {words}"
                ran.add(without_paths(words))
    return ran


@pytest.fixture(scope="module")
def readme(tmp_path_factory):
    """The folder in which the README's commands ran, and their words."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        fill(folder)
        return folder, run_page(README)


def test_the_commands_of_the_readme_run(readme):
    folder, ran = readme
    assert len(ran) >= 6
    assert (folder / "results" / "reconstruction.mp4").is_file()
    assert (folder / "report" / "report.html").is_file()
    info = probe(folder / "again.mp4")
    assert (info.num_frames, info.height, info.width, info.fps) == (13, 48, 64, 25)


@pytest.mark.parametrize("page", RUN_HERE, ids=name_of)
def test_the_commands_of_a_page_run(page, readme, tmp_path, monkeypatch):
    """In a folder of its own, with the model that the README's commands trained; what ran there is not run again."""
    folder, known = readme
    monkeypatch.chdir(tmp_path)
    fill_results(tmp_path)
    for name in ("holiday", "held-out", "others", "out"):
        shutil.copytree(folder / name, name)
    shutil.copy(folder / "holiday.mp4", ".")
    run_page(page, known)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_make_targets_exist():
    lines = [words for block in SHELL for words in command_lines(block.text) if words[0] == "make"]
    assert {"demo", "test", "docs"} == {words[1] for words in lines}
    for words in lines:
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
