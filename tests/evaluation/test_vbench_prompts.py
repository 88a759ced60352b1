"""VBench's prompt lists and pictures: which videos, under which names."""

import json

import pytest

from dcvideogen.errors import UserError
from dcvideogen.evaluation.vbench_images import crops_folder, find_images
from dcvideogen.evaluation.vbench_prompts import MAX_NAME_BYTES, VBenchPrompt, read_prompt_list, with_dimensions

# Rows of VBench_full_info.json and vbench2_i2v_full_info.json, shortened; one prompt stands twice in the former too.
ROWS = [
    {"prompt_en": "In a still frame, a stop sign", "dimension": ["temporal_flickering"]},
    {"prompt_en": "The bund Shanghai, oil painting", "dimension": ["appearance_style"],
     "auxiliary_info": {"appearance_style": {"appearance_style": "oil painting"}}},
    {"prompt_en": "A 3D model of a 1800s victorian house.", "dimension": ["overall_consistency", "imaging_quality"]},
    {"prompt_en": "The bund Shanghai, oil painting", "dimension": ["overall_consistency", "imaging_quality"]},
]  # fmt: skip
I2V_ROWS = [
    {"prompt_en": "a blue liquid", "dimension": ["i2v_background", "temporal_flickering"], "image_type": "abstract",
     "image_name": "a blue liquid.jpg"},
    {"prompt_en": "a blue liquid, camera pans left", "dimension": ["camera_motion"], "image_type": "abstract",
     "image_name": "a blue liquid.jpg"},
]  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def call(content, name="list.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return call


def test_files_are_named_by_the_prompt_and_flickering_has_25(write):
    prompts = read_prompt_list(write(ROWS))
    assert [prompt.samples for prompt in prompts] == [25, 5, 5]
    assert prompts[0].file_name(24) == "In a still frame, a stop sign-24.mp4"
    assert prompts[2].file_name(0) == "A 3D model of a 1800s victorian house.-0.mp4"


def test_a_prompt_that_comes_twice_is_one_for_the_dimensions_of_both(write):
    bund = read_prompt_list(write(ROWS))[1]
    assert bund.dimensions == ("appearance_style", "overall_consistency", "imaging_quality")


def test_every_video_has_a_number_of_its_own_that_no_choice_changes(write):
    prompts = read_prompt_list(write(ROWS))
    numbers = [prompt.number(index) for prompt in prompts for index in range(prompt.samples)]
    assert len(set(numbers)) == 35
    (house,) = with_dimensions(prompts, ["imaging_quality"], "x")[1:]
    assert house.number(3) == prompts[2].number(3) == 53


def test_image_to_video_has_5_of_every_picture_and_prompt(write):
    prompts = read_prompt_list(write(I2V_ROWS))
    assert [(prompt.samples, prompt.image) for prompt in prompts] == [(5, "a blue liquid.jpg")] * 2


def test_a_text_list_knows_its_dimension_by_its_name(write):
    (prompt,) = read_prompt_list(write("a still alley\n", "temporal_flickering.txt"))
    assert (prompt.samples, prompt.dimensions) == (25, ("temporal_flickering",))
    (prompt,) = read_prompt_list(write(" a still alley\r\n\n", "all_dimension.txt"))
    assert prompt == VBenchPrompt(0, "a still alley", "a still alley")
    assert prompt.samples == 5


def test_an_augmented_list_changes_what_the_model_is_told_and_no_name(write):
    longer = write("longer sign\nlonger bund\u2028in oil\nlonger house\nother bund\n", "longer.txt")
    prompts = read_prompt_list(write(ROWS), longer)
    assert [prompt.text for prompt in prompts] == ["longer sign", "longer bund\u2028in oil", "longer house"]
    assert [prompt.prompt for prompt in prompts] == [row["prompt_en"] for row in ROWS[:3]]


def test_an_augmented_list_that_does_not_fit_is_refused(write, tmp_path):
    with pytest.raises(UserError, match=r"longer.txt has 2 prompts and .*list.json 4; a line for each"):
        read_prompt_list(write(ROWS), write("a\nb", "longer.txt"))
    with pytest.raises(UserError, match="line 2: empty; a prompt per line"):
        read_prompt_list(write(ROWS), write("a\n\nb\nc", "longer.txt"))
    with pytest.raises(UserError, match="no such list"):
        read_prompt_list(write(ROWS), tmp_path / "nothing.txt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("nonsense", "is no JSON"),
        ("{}", "is no prompt list"),
        ("[]", "is no prompt list"),
        ('["a"]', "prompt 1: an object with a text as prompt_en"),
        ('[{"prompt_en": "a"}]', "a list of names as dimension"),
        ('[{"prompt_en": "a", "dimension": ["Camera_Motion"]}]', "prompt 1: dimension 'Camera_Motion' came"),
        ([{**I2V_ROWS[0], "image_name": "../a.jpg"}], "the name of a file without a folder"),
        ([ROWS[0], I2V_ROWS[0]], "some prompts have an image_name and some have none"),
        ([I2V_ROWS[0], {**I2V_ROWS[0], "image_name": "b.jpg"}], "came with a blue liquid.jpg and b.jpg"),
        ([{**ROWS[0], "prompt_en": "in/out"}], "'in/out' cannot name a file"),
        ([{**ROWS[0], "prompt_en": "é" * MAX_NAME_BYTES}], f"1 to {MAX_NAME_BYTES} bytes"),
        ([{**ROWS[0], "prompt_en": " "}], "cannot name a file"),
    ],
)
def test_what_is_no_list_is_refused(write, content, message):
    with pytest.raises(UserError, match=r"^(?!.*\n)") as caught:
        read_prompt_list(write(content))
    assert message in str(caught.value)


def test_files_that_are_no_text_lists_are_refused(write, tmp_path):
    with pytest.raises(UserError, match="holds no prompt"):
        read_prompt_list(write("\n", "empty.txt"))
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        read_prompt_list(tmp_path / "bytes.txt")
    with pytest.raises(UserError, match="a folder; give VBench_full_info"):
        read_prompt_list(tmp_path)


def test_the_longest_name_is_short_enough_while_its_latents_are_written(tmp_path):
    from dcvideogen.files import whole_file
    from dcvideogen.pipelines.jobs import Job

    name = VBenchPrompt(0, "a" * MAX_NAME_BYTES, "a").file_name(24)
    with whole_file(Job("a", 0, 0, tmp_path / name).latents) as temporary:
        temporary.touch()
        digits_missing = len("4194304") - len(temporary.name.split(".")[-3])
        assert len(temporary.name) + digits_missing <= 255


def test_dimensions_choose_prompts(write):
    prompts = read_prompt_list(write(ROWS))
    assert [p.row for p in with_dimensions(prompts, ["temporal_flickering", "appearance_style"], "x")] == [0, 1]
    with pytest.raises(UserError, match="x: dimension 'charm' came"):
        with_dimensions(prompts, ["charm"], "x")
    with pytest.raises(UserError, match="x: the list has no prompt of scene"):
        with_dimensions(prompts, ["scene"], "x")
    with pytest.raises(UserError, match="does not say of which dimensions"):
        with_dimensions(read_prompt_list(write("a", "all.txt")), ["scene"], "x")


def test_the_nearest_crops_are_chosen_unless_a_ratio_is(tmp_path):
    for name in ("1-1", "7-4", "16-9", "notes"):
        (tmp_path / name).mkdir()
    chosen = [crops_folder(tmp_path, None, *size)[1] for size in ((480, 832), (720, 1280), (512, 512), (None, None))]
    assert chosen == ["7-4", "16-9", "1-1", "16-9"]
    assert crops_folder(tmp_path, "1-1", 720, 1280) == (tmp_path / "1-1", "1-1")
    with pytest.raises(UserError, match=r"--ratio 8-5: no such folder in .*; 1-1, 16-9, 7-4 are there"):
        crops_folder(tmp_path, "8-5", None, None)


def test_a_folder_without_crops_is_refused(tmp_path):
    with pytest.raises(UserError, match="nothing: no such folder"):
        crops_folder(tmp_path / "nothing", None, None, None)
    with pytest.raises(UserError, match=r"no folder of crops \(1-1, 8-5, 7-4, 16-9\) in it"):
        crops_folder(tmp_path, "1-1", None, None)


def test_pictures_that_are_missing_are_named_before_anything_is_made(write, tmp_path):
    prompts = read_prompt_list(write(I2V_ROWS))
    with pytest.raises(UserError, match=r"no a blue liquid\.jpg; every prompt needs its picture"):
        find_images(prompts, tmp_path)
    many = [VBenchPrompt(n, str(n), str(n), (), f"{n}.jpg") for n in range(5)]
    with pytest.raises(UserError, match=r"no 0.jpg, 1.jpg, 2.jpg and 2 others"):
        find_images(many, tmp_path)
    (tmp_path / "a blue liquid.jpg").touch()
    assert find_images(prompts, tmp_path) == dict.fromkeys(
        ("a blue liquid", "a blue liquid, camera pans left"), tmp_path / "a blue liquid.jpg"
    )
