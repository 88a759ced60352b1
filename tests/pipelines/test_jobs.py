from pathlib import Path

import pytest

from dcvideogen.errors import UserError
from dcvideogen.pipelines.jobs import check_prompt, plan_jobs, read_prompts


def test_one_prompt_is_one_file_and_several_videos_a_folder_of_them():
    (job,) = plan_jobs(["a"], 1, 5, Path("out.mp4"), many=False)
    assert (job.output, job.latents) == (Path("out.mp4"), Path("out.latents.safetensors"))
    jobs = plan_jobs(["a", "b"], 2, 5, Path("out"), many=True)
    names = ["0000-0.mp4", "0000-1.mp4", "0001-0.mp4", "0001-1.mp4"]
    assert [(job.prompt, job.number, job.output.name) for job in jobs] == [
        (prompt, number, name) for number, (prompt, name) in enumerate(zip("aabb", names, strict=True))
    ]
    assert jobs[1].settings({"steps": 3}) == {"prompt": "a", "seed": 5, "number": 1, "steps": 3}


def test_prompts_are_read_from_lines_and_from_json_lines(tmp_path):
    (tmp_path / "a.txt").write_text("one\n\n  two \n")
    (tmp_path / "a.jsonl").write_text('{"prompt": "one"}\n{"caption": "two", "path": "x.mp4"}\n')
    assert read_prompts(tmp_path / "a.txt") == read_prompts(tmp_path / "a.jsonl") == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"\n \n", "holds no prompt"),
        ("a.txt", b"\xff\xfe", "no UTF-8 text"),
        ("a.jsonl", b'{"text": "a"}', 'line 1: no "prompt" or "caption"'),
        ("a.jsonl", b'{"prompt": "a"}\n{"prompt": 3}', "line 2"),
        ("a.txt", b"a" * 10_001, "10001 characters"),
    ],
)
def test_a_file_without_usable_prompts_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_prompts(tmp_path / name)


def test_no_file_and_no_prompt_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_prompts(tmp_path / "a.txt")
    with pytest.raises(UserError, match="the prompt is empty"):
        check_prompt("  ")
