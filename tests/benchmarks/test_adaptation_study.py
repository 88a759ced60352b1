"""The study of adaptation in miniature: every arm runs, resumes, and is told in the report."""

import json
import shutil
from pathlib import Path

import pytest

ARMS = ("scratch", "direct", "frozen", "paper", "ours", "ours-full", "ours-grid", "ours-offset")
SMALL = """--size 64 --num-frames 8 --batch-size 2 --checkpoints 0 1 2 --seeds 0 --captions 2 --final-captions 2
    --final-seeds 1 --sampling-steps 1 --held-out 2 --alignment-clips 4 --alignment-held-out 2 --rank 2 --alpha 4
    --sgd-align-steps 2 --sgd-head-steps 2 --sgd-head-batch 2 --sgd-every 1""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    from tiny_adaptation import make_world

    return make_world(tmp_path_factory.mktemp("world"), clips=8)


def study(world: Path, output: Path, *more: str) -> None:
    from adaptation_study import main

    paths = ["--base", world / "base", "--autoencoder", world / "autoencoder", "--clips", world / "data/manifest.jsonl"]
    main([*map(str, paths), "-o", str(output), "--report", str(output / "report"), *SMALL, *more])


@pytest.fixture(scope="module")
def done(world, tmp_path_factory):
    output = tmp_path_factory.mktemp("study")
    study(world, output, "--stop-at", "1", "--arms", "ours")
    assert set(json.loads((output / "runs/ours-seed0/scores.json").read_text())) == {"0", "1"}
    assert not (output / "runs/ours-seed0/results.json").exists()
    study(world, output)
    return output


def test_every_arm_is_trained_scored_and_told(done):
    raw = json.loads((done / "report.json").read_text())
    report = (done / "report.md").read_text()
    assert set(raw["runs"]) == set(ARMS)
    for arm in ARMS:
        scores = raw["runs"][arm]["0"]["scores"]
        assert set(scores) == {"0", "1", "2"}
        assert scores["2"]["final"]["videos"] == 2
        assert scores["2"]["loss"] > 0
    assert all(f"| ({letter}) " in report for letter in "abcdefgh")
    assert "DiT time per video" in report
    assert "Paper: LoRA ends higher" in report
    drawing = (done / "report.svg").read_text()
    assert drawing.count("<polyline") == 2 * 9  # a line and its legend, for the base too
    assert (done / "runs/ours-seed0/final.png").exists()


def test_arms_begin_and_train_as_they_say(done):
    runs = json.loads((done / "report.json").read_text())["runs"]
    trained = {arm: runs[arm]["0"]["trained"] for arm in ARMS}
    assert trained["scratch"] == trained["direct"] == trained["ours-full"] > trained["ours"] > trained["frozen"]
    assert trained["ours"] == trained["paper"] == trained["ours-grid"] == trained["ours-offset"]
    starts = {arm: runs[arm]["0"]["start"] for arm in ARMS}
    assert starts["scratch"] == starts["direct"] == starts["frozen"] == {}
    assert starts["ours"] == starts["ours-full"]
    assert starts["ours"]["align_loss"] <= starts["paper"]["align_loss"]
    assert starts["ours"]["head_loss"] < starts["ours"]["random_head_loss"]
    assert starts["ours-grid"]["align_loss"] == starts["ours"]["align_loss"]
    assert starts["ours-offset"]["align_loss"] != starts["ours"]["align_loss"]
    first = {arm: runs[arm]["0"]["scores"]["0"]["loss"] for arm in ARMS}
    assert first["ours"] == first["ours-full"]
    assert first["ours"] != first["ours-grid"]


def test_what_is_done_is_not_run_again(world, done):
    before = {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*.json")}
    study(world, done)
    assert {path: path.stat().st_mtime_ns for path in done.glob("runs/*/*.json")} == before


def with_the_cache_of(done: Path, output: Path) -> None:
    """A second study beside the first, without encoding everything again."""
    shutil.copytree(done / "cache", output / "cache")
    shutil.copy(done / "cache.done", output)
    shutil.copy(done / "base.json", output)


def test_stopped_run_ends_as_one_that_went_through(world, done, tmp_path):
    with_the_cache_of(done, tmp_path)
    study(world, tmp_path, "--arms", "ours")
    runs = [json.loads((folder / "runs/ours-seed0/scores.json").read_text()) for folder in (done, tmp_path)]
    assert runs[0]["2"]["loss"] == runs[1]["2"]["loss"]


def test_sweep_chooses_the_rate_of_lowest_loss(world, done, tmp_path):
    with_the_cache_of(done, tmp_path)
    study(world, tmp_path, "--arms", "frozen", "--sweep", "1e-9", "1e-2", "--sweep-steps", "2")
    rates = json.loads((tmp_path / "rates.json").read_text())
    losses = rates["losses"]["frozen"]
    assert rates["chosen"]["frozen"] == float(min(losses, key=losses.get))
    assert json.loads((tmp_path / "runs/frozen-seed0/results.json").read_text())["rate"] == rates["chosen"]["frozen"]
    assert "## Learning rates" in (tmp_path / "report.md").read_text()


def test_plan_tells_the_arms_and_runs_nothing(world, tmp_path, capsys):
    study(world, tmp_path / "none", "--plan")
    told = capsys.readouterr().out
    assert all(f"({letter}) " in told for letter in "abcdefgh")
    assert "together" in told
    assert not (tmp_path / "none").exists()


def test_other_settings_in_a_begun_folder_are_refused(world, done, capsys):
    with pytest.raises(SystemExit):
        study(world, done, "--rank", "3")
    assert "begun with other settings: rank 2" in capsys.readouterr().err


def test_pieces_that_another_process_holds_are_left_to_it(tmp_path):
    from adaptation_study_jobs import Job, claim, run_jobs

    def work(name):
        return Job(name, tmp_path / name, (), lambda: bool((tmp_path / name).write_text("done")) or True)

    with claim(tmp_path / "locks" / "one") as free, claim(tmp_path / "locks" / "one") as again:
        assert free
        assert not again
    second = work("second")
    first = Job("first", tmp_path / "first", (second.done,), work("first").run)
    assert run_jobs([first, second], tmp_path / "locks", wait_seconds=0)
    assert (tmp_path / "first").exists()


def test_verdicts_come_from_the_ranges_of_the_seeds():
    from adaptation_study_results import verdict

    assert verdict([0.8, 0.9], [0.5, 0.7]) == "held"
    assert verdict([0.5, 0.7], [0.8, 0.9]).startswith("did not hold")
    assert verdict([0.5, 0.9], [0.6, 0.7]).startswith("undecided")
    assert verdict([], [0.6]) == "not run"
    assert verdict([0.8], [0.5, 0.7]) == "held, as far as one seed can say"
    assert verdict([0.5], [0.5]) == "undecided"


def test_cost_of_sgd_is_that_of_coming_near_the_solver_with_the_same_seed():
    from adaptation_study_results import Results, cost_of_aligning, sgd_until

    curve = [[100, 2.0, 50.0], [200, 1.0, 150.0]]
    slow = {"head_seconds": 150.0, "head_steps": 200, "head_loss": 1.0, "head_curve": curve}
    assert sgd_until(slow, "head", 1.25) == (125.0, 175.0, True)
    assert sgd_until(slow, "head", 0.9) == (150.0, 200, False)
    slow |= {"align_seconds": 40.0, "align_steps": 10, "align_loss": 0.5}
    fast = {"align_seconds": 0.5, "align_loss": 0.5, "head_seconds": 2.0, "head_loss": 1.25 / 1.01}
    other = {"start": {**fast, "head_loss": 9.0}}
    runs = {"ours": {0: {"start": fast}, 1: other}, "paper": {0: {"start": slow}}}
    embedder, head, both = cost_of_aligning(Results(runs, None, {}, None))
    assert embedder[1] == "met. seed 0: 0.5 s (loss 0.5); SGD 10 steps, 40 s (80 times)"
    assert head[1].endswith("SGD 175 steps, 125 s (62.5 times)")
    assert both[1] == "met: 66 times"
    fast["head_loss"] = 0.5
    assert "missed" not in cost_of_aligning(Results(runs, None, {}, None))[1][1]
    assert "SGD not within 200 steps, 150 s (75 times)" in cost_of_aligning(Results(runs, None, {}, None))[1][1]
