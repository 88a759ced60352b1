import pytest
import torch

from dcvideogen.adaptation.backbones import backbone_named
from dcvideogen.adaptation.folder import load_base
from dcvideogen.adaptation.surgery import add_condition
from dcvideogen.data.shapes import render
from dcvideogen.recipes.shapes_i2v_scoring import CLIP_SEED, frame_psnr, score_image_to_video
from dcvideogen.recipes.shapes_scoring import Sampling, encode_captions, held_out_combinations
from dcvideogen.shapes_world import combinations
from dcvideogen.weights import bundled_pipelines

SIZE, FRAMES = 64, 29
BASE = bundled_pipelines()["shapes-base"]


def real(one, seed=0):
    return render(one, CLIP_SEED + seed * len(combinations("all")) + one.index, size=SIZE)[:, 3 : 3 + FRAMES]


@pytest.fixture(scope="module")
def model():
    base, backbone = load_base(BASE)
    return add_condition(base, backbone)


def score(model, decode, seen, **changes):
    asked = held_out_combinations(3)

    def encode(videos):
        seen.append(videos)
        return torch.zeros(len(videos), 16, 8, 2, 2)

    return score_image_to_video(
        model, backbone_named("wan"), encode, decode, encode_captions(BASE, asked), (16, 8, 2, 2),
        num_frames=FRAMES, size=SIZE, repeat=1, first=3, sampling=Sampling(steps=1, guidance=1.0), **changes,
    )  # fmt: skip


def test_real_clips_score_fully_and_their_first_frames_are_what_was_given(model):
    asked, seen = held_out_combinations(3), []
    clips = torch.stack([real(one) for one in asked])

    def decode(latents):
        if len(latents) == 3:  # what was sampled
            return clips
        return seen[-1] + 0.02  # the autoencoder by itself

    found = score(model, decode, seen)
    assert (found["retention"], found["motion"], found["joint"], found["videos"]) == (1.0, 1.0, 1.0, 3)
    assert found["first_frame_psnr"] > 70
    assert found["autoencoder_psnr"] == pytest.approx(-20 * torch.log10(torch.tensor(0.01)), abs=1.5)
    for index in range(3):  # the condition: the first frame once, then zeros
        assert torch.equal(seen[index][0, :, 0], clips[index][:, 0])
        assert not seen[index][0, :, 1:].any()


def test_clips_of_others_lose_what_the_picture_showed(model):
    asked = held_out_combinations(3)
    clips = torch.stack([real(one) for one in (*asked[1:], asked[0])])
    found = score(model, lambda latents: clips[: len(latents)], [])
    assert found["retention"] < 0.8
    assert found["first_frame_psnr"] < 25


def test_the_condition_is_made_as_the_transformer_was_trained(model):
    seen, clip = [], real(held_out_combinations(1)[0])
    score(
        model, lambda latents: clip.expand(len(latents), -1, -1, -1, -1), seen, image_condition="chunk", chunk_frames=8
    )
    assert torch.equal(seen[0][0, :, :8], clip[:, :1].expand(-1, 8, -1, -1))
    assert not seen[0][0, :, 8:].any()


def test_psnr_of_frames_is_that_of_eight_bit_pictures():
    frame = -torch.ones(3, 4, 4)
    assert frame_psnr(frame, frame) == pytest.approx(78.1, abs=0.1)  # held to 1e-3: no infinite means
    assert frame_psnr(frame, frame + 2 / 255) == pytest.approx(48.13, abs=0.01)
