"""The scorer against real renders, damaged ones and ones that show something else."""

import math
import random
import time

import pytest
import torch
import torch.nn.functional as F

from dcvideogen.data.shapes import render
from dcvideogen.errors import UserError
from dcvideogen.evaluation.shapes_reading import ShapesReading, read_shapes
from dcvideogen.evaluation.shapes_score import ShapesScore, chance, mean_scores, score_reading, score_video
from dcvideogen.shapes_world import ATTRIBUTES, COLORS, Combination, combinations

RED = Combination("small", "red", "circle", "moves right", "navy")
STILL = Combination("large", "cyan", "triangle", "stays still", "gray")
WORLD = combinations("all")


@pytest.fixture(scope="module")
def readings():
    """(combination, reading) of 108 combinations, a fifth of the world."""
    chosen = random.Random(0).sample(WORLD, 108)
    return [(one, read_shapes(render(one, seed=index))) for index, one in enumerate(chosen)]


@pytest.fixture
def red():
    return render(RED, 1)


def empty_like(clip):
    """Its background alone."""
    return clip[:, :1, -4:, -4:].mean((1, 2, 3)).view(3, 1, 1, 1).expand(clip.shape).clone()


def damaged(clip, blur_px, psnr_db, seed=0):
    """Gaussian blur, then noise that alone would give so many dB: what a middling autoencoder does."""
    kernel = torch.exp(-torch.arange(-6, 7.0).square() / 2 / blur_px**2)
    kernel = (kernel / kernel.sum()).view(1, 1, 1, -1).expand(3, 1, 1, -1)
    frames = F.conv2d(F.pad(clip.transpose(0, 1), (6, 6, 0, 0), mode="replicate"), kernel, groups=3)
    frames = F.conv2d(F.pad(frames, (0, 0, 6, 6), mode="replicate"), kernel.transpose(2, 3), groups=3)
    noise = torch.randn(clip.shape, generator=torch.Generator().manual_seed(seed))
    return frames.transpose(0, 1) + 2 * 10 ** (-psnr_db / 20) * noise


def seen(clip):
    reading = read_shapes(clip)
    return {name: getattr(reading, name) for name in ATTRIBUTES}


def test_real_renders_are_read_right_and_judged_well_made(readings):
    scores = [score_reading(reading, one) for one, reading in readings]
    mean = mean_scores(scores)
    assert mean["joint"] >= 0.99
    assert mean["semantic"] >= 0.995
    assert mean["persistence"] >= 0.995
    assert min(score.sharpness for score in scores) > 0.95
    assert min(score.smoothness for score in scores) > 0.9


def test_nothing_is_taken_for_something_else(readings):
    """The confusion table of each attribute is diagonal, and no row of it is empty."""
    for attribute, names in ATTRIBUTES.items():
        pairs = {(getattr(one, attribute), getattr(reading, attribute)) for one, reading in readings}
        assert pairs == {(name, name) for name in names}


def test_sizes_and_travels_lie_well_inside_their_classes(readings):
    for one, reading in readings:
        low, high = (0.12, 0.16) if one.size == "small" else (0.205, 0.275)
        assert low < reading.radius < high
        assert (math.hypot(*reading.travel) < 0.01) == (one.motion == "stays still")


@pytest.mark.parametrize(
    ("size", "first", "blur_px", "psnr_db"),
    [(64, 0, None, None), (128, 3, None, None), (64, 3, 0.8, 28), (128, 3, 1.5, 28), (128, 0, 3, 22)],
)
def test_fewer_frames_fewer_pixels_and_the_damage_of_an_autoencoder_change_no_answer(size, first, blur_px, psnr_db):
    scores = []
    for index, one in enumerate(WORLD[4::41]):
        clip = render(one, index, size=size)[:, first:]
        clip = clip if blur_px is None else damaged(clip, blur_px, psnr_db, seed=index)
        scores.append(score_video(clip, one))
    assert mean_scores(scores)["joint"] == 1


def test_chance_is_the_share_of_pairs_that_agree():
    exact = chance(WORLD, WORLD)
    assert exact["semantic"] == pytest.approx((1 / 2 + 1 / 6 + 1 / 3 + 1 / 5 + 1 / 3) / 5)
    assert exact["joint"] == pytest.approx(1 / 540)
    assert exact["color"] == pytest.approx(1 / 6)
    # The held-out combinations are not quite as evenly mixed.
    held_out = chance(combinations("test"), combinations("test"))
    assert held_out["joint"] == pytest.approx(1 / 73)
    assert 0.3 < held_out["semantic"] < 0.32


def test_shuffled_captions_fall_to_chance(readings):
    captions = [one for one, _ in readings]
    everyone = mean_scores([score_reading(reading, one) for _, reading in readings for one in captions])
    exact = chance(captions, captions)
    for name, value in exact.items():
        assert everyone[name] == pytest.approx(value)
    shuffled = random.Random(0).choices(WORLD, k=len(captions) * 20)
    once = mean_scores([score_reading(readings[i % len(readings)][1], one) for i, one in enumerate(shuffled)])
    assert once["semantic"] == pytest.approx(0.3067, abs=0.02)
    assert once["joint"] < 0.02


def test_each_wrong_answer_costs_one_of_five(red):
    for change in (
        {"size": "large"}, {"color": "magenta"}, {"shape": "square"}, {"motion": "moves left"}, {"background": "black"},
    ):  # fmt: skip
        score = score_video(red, Combination(**{**vars(RED), **change}))
        assert (score.semantic, score.joint, getattr(score, next(iter(change)))) == (0.8, 0.0, 0.0)


@pytest.mark.parametrize("frames", ["gray", "uniform", "normal", "stripes", "nothing", "not a number", "infinite"])
def test_videos_without_an_object_score_at_most_their_background(red, frames):
    generator = torch.Generator().manual_seed(0)
    clip = {
        "gray": torch.zeros_like(red),
        "uniform": torch.rand(red.shape, generator=generator) * 2 - 1,
        "normal": torch.randn(red.shape, generator=generator),
        "stripes": torch.ones_like(red) * torch.linspace(-40, 40, 128).sin().view(1, 1, 1, -1),
        "nothing": empty_like(red),
        "not a number": torch.full_like(red, math.nan),
        "infinite": torch.full_like(red, math.inf),
    }[frames]
    values = score_video(clip, RED).as_json()
    assert values["background"] == (frames == "nothing")
    assert {name: value for name, value in values.items() if value} == (
        {"background": 1.0, "semantic": 0.2} if frames == "nothing" else {}
    )


def test_a_broken_frame_costs_persistence_alone(red):
    red[:, 5] = math.nan
    score = score_video(red, RED)
    assert score.joint == 1
    assert score.persistence == pytest.approx(31 / 32)


def test_an_object_that_disappears_loses_persistence(red):
    gone = red.clone()
    gone[:, 24:] = empty_like(red)[:, 24:]
    assert score_video(gone, RED).persistence == 0.75
    assert score_video(red, RED).persistence == 1
    gone[:, 10:] = empty_like(red)[:, 10:]
    score = score_video(gone, RED)
    assert (score.persistence, score.motion) == (10 / 32, 0)


def test_an_object_that_changes_its_size_loses_persistence():
    sizes = [render(Combination(size, *list(vars(STILL).values())[1:]), 2) for size in ("small", "large")]
    growing = torch.cat([sizes[0][:, :8], sizes[1][:, 8:]], 1)
    assert score_video(growing, STILL).persistence == 0.75


def test_standing_may_drift_a_little_and_is_no_motion(red):
    still = render(STILL, 2)
    for pixels, motion in ((6, "stays still"), (14, None), (40, "moves left")):
        drifting = torch.stack(
            [torch.roll(still[:, i], -round(i / 31 * pixels), -1) for i in range(32)], 1
        )  # fmt: skip
        assert read_shapes(drifting).motion == motion
    swinging = torch.stack([torch.roll(still[:, i], round(12 * math.sin(i / 3)), -1) for i in range(32)], 1)
    assert read_shapes(swinging).motion is None
    jumping = torch.cat([red[:, :1].expand(-1, 16, -1, -1), red[:, -1:].expand(-1, 16, -1, -1)], 1)
    assert read_shapes(jumping).motion is None


def test_single_frames_stand_still(red):
    assert read_shapes(red[:, :1]).motion == "stays still"
    assert seen(red[:, :1]) == {**vars(RED), "motion": "stays still"}


def test_colors_between_the_palettes_entries_are_none_of_them(red):
    for color, name in (((235, 125, 45), None), ((240, 240, 240), None), (COLORS["green"], "green")):
        clip = empty_like(red)
        clip[:, :, 40:75, 40:75] = torch.tensor(color).view(3, 1, 1, 1) / 127.5 - 1
        assert read_shapes(clip).color == name
    for level, name in ((-1, "black"), (-0.45, None), (0, "gray"), (1, None)):
        assert read_shapes(torch.full_like(red, level)).background == name


def test_two_objects_are_not_the_one_that_was_asked_for(red):
    two = torch.maximum(red, red.flip(2))
    assert seen(two) == {**dict.fromkeys(ATTRIBUTES), "background": "navy", "color": "red"}
    assert score_video(two, RED).quality == 0


def test_a_bar_is_no_square(red):
    clip = empty_like(red)
    clip[0, :, 40:64, 30:90] = 0.8
    assert (read_shapes(clip).color, read_shapes(clip).shape) == ("red", None)


def test_blur_ghosts_flicker_and_jitter_cost_quality_and_nothing_else(red):
    whole = score_video(red, RED)
    generator = torch.Generator().manual_seed(0)
    ghost = torch.cat([red[:, :4], 0.6 * red[:, 4:] + 0.4 * red[:, :-4]], 1)
    flicker = red + 0.1 * torch.randn(1, 32, 1, 1, generator=generator)
    shaken = torch.stack(
        [torch.roll(red[:, i], int(torch.randint(-4, 5, (), generator=generator)), -2) for i in range(32)], 1
    )
    scores = {
        "blurred": score_video(damaged(red, 2, 60), RED),
        "ghost": score_video(ghost, RED),
        "flicker": score_video(flicker, RED),
        "shaken": score_video(shaken, RED),
    }
    assert all(score.joint == 1 for score in scores.values())
    assert whole.quality > 0.95
    assert all(score.quality < 0.9 for score in scores.values())
    assert scores["blurred"].sharpness < 0.5
    assert scores["ghost"].sharpness < 0.5
    assert scores["flicker"].smoothness < 0.6
    assert scores["shaken"].smoothness < 0.4


def test_more_blur_is_never_sharper(red):
    widths = [score_video(damaged(red, blur, 40), RED).sharpness for blur in (0.3, 0.8, 1.5, 3)]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 0.95
    assert widths[-1] < 0.4


def test_scores_travel_as_plain_numbers():
    score = ShapesScore(1, 1, 1, 0, 1, persistence=0.5, smoothness=1.0, sharpness=0.0)
    assert list(score.as_json()) == [
        "background", "color", "size", "shape", "motion", "persistence", "smoothness", "sharpness", "semantic",
        "joint", "quality",
    ]  # fmt: skip
    assert (score.semantic, score.joint, score.quality) == (0.8, 0, 0.5)
    nothing = score_reading(ShapesReading(None), RED)
    assert mean_scores([score, nothing])["semantic"] == 0.4
    with pytest.raises(ValueError, match="no scores came"):
        mean_scores([])


@pytest.mark.parametrize("shape", [(1, 3, 8, 64, 64), (4, 8, 64, 64), (3, 0, 64, 64), (3, 8, 15, 64)])
def test_what_is_no_video_is_refused(shape):
    with pytest.raises(UserError, match=r"came; \(3, T, H, W\) with T from 1 and sides from 16 is allowed"):
        read_shapes(torch.zeros(shape))


def test_scoring_takes_milliseconds_and_leaves_the_video_as_it_was(red):
    before, times = red.clone(), []
    for _ in range(6):
        began = time.process_time()
        score_video(red, RED)
        times.append(time.process_time() - began)
    assert min(times) < 0.1  # 20 ms measured
    assert torch.equal(red, before)
