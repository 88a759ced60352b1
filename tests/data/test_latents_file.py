import dataclasses
from fractions import Fraction

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from dcvideogen.data.latents_file import LatentsInfo, read_latents, read_latents_info, write_latents
from dcvideogen.errors import UserError

INFO = LatentsInfo(height=50, width=70, num_frames=13, fps=Fraction(30000, 1001), latent_space_id="abc", model="small")


def metadata(**changes: str) -> dict[str, str]:
    fields = {
        "format": "dcvideogen.latents/1",
        "height": "50",
        "width": "70",
        "num_frames": "13",
        "fps": "24",
        "padding": "replicate-end",
        "latent_space_id": "abc",
        "model": "small",
    }
    return {key: value for key, value in {**fields, **changes}.items() if value}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_and_what_is_said_about_them_come_back_exactly(tmp_path, dtype):
    latents = torch.randn(16, 4, 2, 3, dtype=dtype)
    path = tmp_path / "new" / "clip.safetensors"
    write_latents(path, latents[:, ::2], INFO)
    back, info = read_latents(path)
    assert torch.equal(back, latents[:, ::2])
    assert back.dtype == dtype
    assert info == INFO
    assert [entry.name for entry in path.parent.iterdir()] == ["clip.safetensors"]


GENERATION = {
    "prompt": 'a "small" red circle,\nmoves left; 円 Gefäß',
    "negative_prompt": "",
    "seed": 3,
    "index": 1,
    "steps": 50,
    "guidance": 5.0,
    "scheduler": "UniPCMultistepScheduler",
    "shift": 5.0,
    "model": "some/folder",
    "sizes": [[448, 832], None],
}


def test_what_latents_were_generated_from_comes_back_exactly(tmp_path):
    path = tmp_path / "video.safetensors"
    written = dataclasses.replace(INFO, generation=GENERATION)
    write_latents(path, torch.zeros(4, 1, 1, 1), written)
    assert read_latents(path)[1] == read_latents_info(path) == written
    assert read_latents_info(path).generation == GENERATION


def test_latents_of_a_clip_say_nothing_of_a_generation(tmp_path):
    path = tmp_path / "clip.safetensors"
    save_file({"latents": torch.zeros(4, 1, 1, 1)}, path, metadata=metadata())
    assert read_latents_info(path).generation is None
    write_latents(path, torch.zeros(4, 1, 1, 1), INFO)
    with safe_open(path, framework="pt") as file:
        assert set(file.metadata()) == set(metadata())


@pytest.mark.parametrize("generation", [{"guidance": float("nan")}, {"shape": torch.Size}])
def test_a_generation_that_is_not_plain_json_is_refused_before_anything_is_written(tmp_path, generation):
    with pytest.raises((ValueError, TypeError), match="JSON"):
        write_latents(
            tmp_path / "a.safetensors", torch.zeros(4, 1, 1, 1), dataclasses.replace(INFO, generation=generation)
        )
    assert not list(tmp_path.iterdir())


def test_an_old_file_stays_whole_when_writing_fails(tmp_path, monkeypatch):
    path = tmp_path / "clip.safetensors"
    write_latents(path, torch.zeros(4, 1, 1, 1), INFO)
    before = path.read_bytes()
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_latents(path, torch.ones(4, 1, 1, 1), INFO)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.safetensors"]


def test_a_file_has_the_permissions_that_other_new_files_have(tmp_path):
    write_latents(tmp_path / "clip.safetensors", torch.zeros(4, 1, 1, 1), INFO)
    (tmp_path / "other").touch()
    modes = [(tmp_path / name).stat().st_mode for name in ("clip.safetensors", "other")]
    assert modes[0] == modes[1]


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"ends in \.safetensors"):
        write_latents(tmp_path / "clip.pt", torch.zeros(4, 1, 1, 1), INFO)


@pytest.mark.parametrize(
    "latents", [torch.zeros(1, 4, 1, 1, 1), torch.zeros(4, 0, 1, 1), torch.zeros(4, 1, 1, 1).int()]
)
def test_latents_of_another_shape_or_type_are_refused(tmp_path, latents):
    with pytest.raises(ValueError, match="float is allowed"):
        write_latents(tmp_path / "clip.safetensors", latents, INFO)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_latents(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="a folder"):
        read_latents(tmp_path)


def test_a_file_cut_in_half_is_refused(tmp_path):
    path = tmp_path / "clip.safetensors"
    write_latents(path, torch.randn(16, 4, 8, 8), INFO)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_latents(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        read_latents_info(path)


@pytest.mark.parametrize(
    ("tensors", "fields", "message"),
    [
        ({"latents": torch.zeros(4, 1, 1, 1)}, None, "no format entry"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"format": "other/2"}, "format 'other/2'"),
        ({"weight": torch.zeros(4, 1, 1, 1)}, {}, "one tensor 'latents'"),
        ({"latents": torch.zeros(4, 1, 1)}, {}, "one tensor 'latents'"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"fps": ""}, "lack 'fps'"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"fps": "1/0"}, "not readable"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"height": "tall"}, "not readable"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"num_frames": "0"}, "must be above 0"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"padding": "mirror"}, "padding 'mirror'"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"generation": '["a cat"]'}, "a generation that is a list; an object"),
        ({"latents": torch.zeros(4, 1, 1, 1)}, {"generation": '{"prompt": '}, "not readable"),
    ],
)
def test_foreign_and_damaged_files_are_refused_with_what_is_wrong(tmp_path, tensors, fields, message):
    path = tmp_path / "clip.safetensors"
    save_file(tensors, path, metadata=None if fields is None else metadata(**fields))
    with pytest.raises(UserError, match=message):
        read_latents(path)
