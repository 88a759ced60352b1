"""VBench's result files, and the table of them."""

import json

import pytest

from dcvideogen.errors import UserError
from dcvideogen.evaluation.vbench_results import read_results
from dcvideogen.evaluation.vbench_scores import I2V_SUITE, T2V_SUITE
from dcvideogen.evaluation.vbench_table import make_row, vbench_json, vbench_markdown

VIDEOS = [{"video_path": "videos/a-0.mp4", "video_results": 0.5}]


def write(path, results):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results))
    return path


def everything(suite, value=0.5):
    return dict.fromkeys(suite.names, value)


def test_the_files_of_a_folder_are_one_models(tmp_path):
    write(tmp_path / "run" / "one_eval_results.json", {"scene": [0.25, VIDEOS], "color": [1, VIDEOS]})
    write(tmp_path / "run" / "two_eval_results.json", {"camera_motion": [0.5, {"pan_left": 0.5}, VIDEOS]})
    write(tmp_path / "run" / "two_full_info.json", [{"prompt_en": "a"}])
    assert read_results(tmp_path / "run") == {"scene": 0.25, "color": 1.0, "camera_motion": 0.5}


def test_a_file_of_any_name_is_read(tmp_path):
    assert read_results(write(tmp_path / "mine.json", {"scene": [0.25, VIDEOS]})) == {"scene": 0.25}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("scene: 0.5", "is no JSON"),
        ("[1]", "a list that begins with 1 came; VBench's results are an object of dimensions"),
        ("{}", "an empty object came"),
        ('{"scene": 0.5}', "scene is 0.5; VBench writes a list that begins with the result"),
        ('{"scene": []}', "scene is an empty list"),
        ('{"scene": [true]}', "scene is a list that begins with True"),
        ('{"scene": [[0.5]]}', "scene is a list that begins with a list"),
        ('{"scene": [NaN, []]}', "scene is nan; VBench found no videos of it"),
        ('{"scene": [52.5, []]}', "scene is 52.5; VBench's results are from 0 to 1, not percent"),
        ('{"charm": [0.5, []]}', "dimension 'charm' came; VBench has "),
    ],
)
def test_what_is_no_result_file_is_refused(tmp_path, content, message):
    path = tmp_path / "x_eval_results.json"
    path.write_text(content)
    with pytest.raises(UserError, match="x_eval_results") as caught:
        read_results(path)
    assert message in str(caught.value)


def test_nothing_to_read_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: no such file"):
        read_results(tmp_path / "nothing.json")
    with pytest.raises(UserError, match=r"no \*_eval_results.json in the folder"):
        read_results(tmp_path)


def test_two_results_of_a_dimension_are_refused_unless_they_are_the_same(tmp_path):
    for name in "ab":
        write(tmp_path / f"{name}_eval_results.json", {"scene": [0.25, VIDEOS]})
    assert read_results(tmp_path) == {"scene": 0.25}
    write(tmp_path / "c_eval_results.json", {"scene": [0.75, VIDEOS]})
    with pytest.raises(UserError, match=r"scene is 0\.2500 in a_eval_results\.json and 0\.7500 in c_eval"):
        read_results(tmp_path)


def test_the_table_has_a_part_for_each_suite_and_says_what_is_missing():
    base, partly = everything(T2V_SUITE), everything(T2V_SUITE)
    del partly["scene"], partly["temporal_flickering"]
    rows = [make_row("base", base), make_row("i2v", everything(I2V_SUITE)), make_row("partly|", partly)]
    lines = vbench_markdown(rows).splitlines()
    assert lines[0] == "| VBench | total | quality | semantic |"
    assert lines[3] == "| partly\\| | - | - | - |"
    assert "- partly| has no total: temporal_flickering, scene missing." in lines
    assert "| scene | 50.00 | - |" in lines
    assert "| VBench-I2V | total | quality | I2V |" in lines
    assert "| camera_motion | 50.00 |" in lines


def test_the_json_has_vbenchs_own_numbers_and_the_scores():
    results = {"scene": 0.25}
    assert vbench_json([make_row("a", results)]) == [
        {
            "name": "a", "suite": "VBench", "total": None, "quality": None, "semantic": None,
            "missing": [name for name in T2V_SUITE.names if name != "scene"], "dimensions": results,
        }
    ]  # fmt: skip
