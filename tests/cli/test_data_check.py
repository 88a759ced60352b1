import json
import sys
from pathlib import Path

import pytest

from dcvideogen.cli.main import run

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from media import holiday_folder, moving_frames, write_clip


@pytest.fixture
def holiday(tmp_path):
    return holiday_folder(tmp_path / "holiday")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_report_says_what_was_left_out_and_why(holiday, tmp_path, capsys):
    assert run(["data", "check", str(holiday), "-o", str(tmp_path / "out"), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    for words in ("truncated", "cut.mp4: breaks at frame", "unreadable", "text.mp4", "static", "still.mp4"):
        assert words in printed
    assert "2 videos (0.0 minutes, 32 frames, 0 scene cuts) and 1 images are usable, 3 files are left out" in printed
    assert "6 were decoded" in printed
    assert [line["name"] for line in lines(tmp_path / "out" / "index.jsonl")] == ["beach.mkv", "view.png", "walk.mp4"]
    assert {line["reason"] for line in lines(tmp_path / "out" / "rejected.jsonl")} == {
        "truncated", "unreadable", "static",
    }  # fmt: skip
    assert run(["data", "check", str(holiday), "-o", str(tmp_path / "out"), "--jobs", "1"]) == 0
    assert "0 were decoded" in capsys.readouterr().out


def test_the_index_goes_into_the_source_by_default(holiday):
    assert run(["data", "check", str(holiday), "--jobs", "1"]) == 0
    assert (holiday / "index.jsonl").is_file()


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--min-frames", "13"], ["view.png", "walk.mp4"]),
        (["--min-side", "49"], ["view.png"]),
        (["--codec", "h264", "--codec", "png"], ["view.png", "walk.mp4"]),
        (["--max-static-share", "1"], ["beach.mkv", "still.mp4", "view.png", "walk.mp4"]),
        (["--max-black-share", "0", "--set", "black_levels=250"], []),
        (["--set", "min_frames=13"], ["view.png", "walk.mp4"]),
    ],
)
def test_each_option_changes_what_is_left(holiday, options, left):
    code = run(["data", "check", str(holiday), "--jobs", "1", *options])
    assert code == (0 if left else 2)
    assert [line["name"] for line in lines(holiday / "index.jsonl")] == left


def test_nothing_usable_is_exit_code_two_and_names_the_report(tmp_path, capsys):
    (tmp_path / "a.mp4").write_text("x" * 99)
    assert run(["data", "check", str(tmp_path), "--jobs", "1"]) == 2
    assert "nothing usable is left (1 unreadable)" in capsys.readouterr().err
    assert len(lines(tmp_path / "rejected.jsonl")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "--jobs 0 came; 1 or more is allowed"),
        (["--min-frames", "0"], "min_frames 0 came; input should be greater than 0"),
        (["--max-black-share", "2"], "max_black_share 2.0 came"),
        (["--set", "colour=3"], "--set colour=3 came; KEY=NUMBER is allowed, with a KEY of min_frames"),
        (["--set", "cut_levels=high"], "cut_levels 'high' came"),
    ],
)
def test_wrong_options_are_one_line(tmp_path, capsys, options, message):
    assert run(["data", "check", str(tmp_path), *options]) == 2
    assert message in capsys.readouterr().err


def test_missing_and_empty_sources_are_told(tmp_path, capsys):
    assert run(["data", "check", str(tmp_path / "nowhere")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert run(["data", "check", str(tmp_path)]) == 2
    assert "holds no files" in capsys.readouterr().err


def test_names_that_look_like_markup_are_printed_as_they_are(tmp_path, capsys):
    write_clip(tmp_path / "good.mkv", moving_frames(9))
    (tmp_path / "[bold]x.mp4").write_text("x")
    assert run(["data", "check", str(tmp_path), "--jobs", "1"]) == 0
    assert "[bold]x.mp4" in capsys.readouterr().out


def test_the_group_without_a_command_shows_its_help(capsys):
    assert run(["data"]) == 0
    assert "check" in capsys.readouterr().out


def test_many_reasons_are_shortened_to_a_few_files(tmp_path, capsys):
    write_clip(tmp_path / "good.mkv", moving_frames(9))
    for number in range(5):
        (tmp_path / f"note{number}.txt").write_text("x")
    assert run(["data", "check", str(tmp_path), "--jobs", "1"]) == 0
    printed = capsys.readouterr().out
    assert "note2.txt" in printed
    assert "note3.txt" not in printed
    assert "and 2 more" in printed
