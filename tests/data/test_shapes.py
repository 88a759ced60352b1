"""Rendered clips: what the specification says of them, read from their pixels."""

import itertools
import time

import pytest
import torch

from dcvideogen.data.shapes import plan_clips, render
from dcvideogen.errors import UserError
from dcvideogen.shapes_world import BACKGROUNDS, COLORS, MOTIONS, SHAPES, SIZES, Combination, combinations

MOVING = Combination("small", "yellow", "square", "moves up", "navy")
STANDING = Combination("large", "red", "circle", "stays still", "black")


def centres(clip, combination):
    """(T, 2) x, y in sides, and (T,) areas in sides squared, from how much each pixel is covered."""
    ground, color = torch.tensor(BACKGROUNDS[combination.background]), torch.tensor(COLORS[combination.color])
    axis = (color - ground).float()
    levels = (clip + 1) * 127.5 - ground.view(3, 1, 1, 1)
    cover = (torch.einsum("cthw,c->thw", levels, axis) / axis.square().sum()).clamp(0, 1)
    cover = torch.where(cover > 0.25, cover, 0.0)
    size = clip.shape[-1]
    places = (torch.arange(size) + 0.5) / size
    total = cover.sum((1, 2))
    return torch.stack([cover.sum(1) @ places, cover.sum(2) @ places], 1) / total[:, None], total / size**2


def test_a_clip_is_a_float_video_and_follows_from_its_arguments():
    clip = render(MOVING, 3)
    assert (clip.shape, clip.dtype) == ((3, 32, 128, 128), torch.float32)
    assert clip.min() >= -1
    assert clip.max() <= 1
    assert torch.equal(clip, render(MOVING, 3))
    assert render(MOVING, 3, num_frames=5, size=64).shape == (3, 5, 64, 64)


def test_rendering_leaves_the_global_generators_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    render(MOVING, 3)
    assert torch.equal(torch.rand(3), expected)


def test_the_numbers_drawn_are_the_same_everywhere():
    """Read off once; Python's generator, unlike torch's, promises to give them on every machine."""
    place, area = centres(render(MOVING, 3), MOVING)
    torch.testing.assert_close(place[0], torch.tensor([0.2287, 0.7403]), atol=2e-3, rtol=0)
    torch.testing.assert_close(place[-1], torch.tensor([0.2287, 0.2360]), atol=2e-3, rtol=0)
    assert area[0].item() == pytest.approx(0.0625, rel=0.02)


def test_every_seed_and_every_combination_has_its_own_variation():
    clips = [render(MOVING, seed) for seed in range(4)]
    for one, other in itertools.combinations(clips, 2):
        assert (one - other).abs().max() > 0.5
    places = {round(centres(render(one, 0), one)[0][0, 0].item(), 4) for one in combinations("all")[::60]}
    assert len(places) == 9


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_moving_shape_travels_evenly_as_far_as_it_should_and_a_standing_one_does_not(motion):
    direction = torch.tensor(MOTIONS[motion], dtype=torch.float32)
    for seed, size in itertools.product(range(6), SIZES):
        combination = Combination(size, "cyan", SHAPES[seed % 3], motion, "black")
        place, _ = centres(render(combination, seed), combination)
        travel = place[-1] - place[0]
        if motion == "stays still":
            assert travel.abs().max() == 0
            continue
        along = (travel * direction).sum()
        assert 0.345 <= along <= 0.605
        assert (travel - along * direction).abs().max() < 2e-3
        assert (place.diff(dim=0) - travel / 31).abs().max() < 3e-3


def test_the_whole_shape_is_in_the_frame_at_all_times():
    for index, combination in enumerate(combinations("all")[::11]):
        clip = render(combination, index, num_frames=8)
        border = torch.cat([clip[..., 0, :], clip[..., -1, :], clip[..., 0], clip[..., -1]], -1)
        ground = torch.tensor(BACKGROUNDS[combination.background]).view(3, 1, 1)
        # Variation of 8 levels, texture of 3.
        assert ((border + 1) * 127.5 - ground).abs().max() <= 11.01


def test_radius_colors_and_background_vary_no_more_than_they_should():
    areas = {"circle": 3.14159, "square": 2.89, "triangle": 1.8706}
    ratios, colors = [], []
    for seed in range(40):
        combination = Combination("large", "green", SHAPES[seed % 3], "stays still", "gray")
        clip = render(combination, seed, num_frames=1)
        place, area = centres(clip, combination)
        ratios.append((area[0].item() / areas[combination.shape]) ** 0.5 / 0.24)
        x, y = (place[0] * 128).long().tolist()
        colors.append((clip[:, 0, y, x] + 1) * 127.5 - torch.tensor(COLORS["green"]))
    assert 0.88 < min(ratios) < 0.93
    assert 1.07 < max(ratios) < 1.12
    colors = torch.stack(colors)
    assert colors.abs().max() <= 8.01
    assert (colors.amin(0) < -5).all()
    assert (colors.amax(0) > 5).all()


def test_the_background_has_a_faint_texture_that_stands_still():
    clip = (render(STANDING, 1) + 1) * 127.5
    assert torch.equal(clip[:, 0], clip[:, -1])
    for corner in (clip[0, 0, :20, :20], clip[1, 0, -20:, -20:]):
        assert 0.5 < corner.max() - corner.min() <= 6


def test_edges_are_antialiased():
    clip = render(MOVING, 2)
    levels = (clip[0] + 1) * 127.5
    between = (levels > 15 + 40) & (levels < 240 - 40)
    # A moving square's two edges across its way: at most a pixel each, at most frames.
    assert 0.5 < between.any(2).sum(1).float().mean() <= 36
    coarse, fine = render(MOVING, 2, size=64), render(MOVING, 2, size=512)
    pooled = torch.nn.functional.avg_pool2d(fine, 8)
    assert (coarse - pooled).abs().max() < 0.35
    assert (coarse - pooled).abs().mean() < 2e-3


def test_rendering_takes_milliseconds():
    times = []
    for seed in range(8):
        began = time.process_time()
        render(MOVING, seed)
        times.append(time.process_time() - began)
    assert min(times) < 0.05  # 6 ms measured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed -1 came; 0 or more"),
        ({"seed": 0, "num_frames": 0}, "0 frames of 128 pixels came"),
        ({"seed": 0, "size": 15}, "32 frames of 15 pixels came; .* at least 16 pixels"),
    ],
)
def test_what_cannot_be_rendered_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        render(MOVING, **arguments)


def test_a_plan_goes_evenly_through_its_split_and_grows_at_its_end():
    plan = plan_clips("test", 150, seed=2)
    counts = [sum(clip.combination == one for clip in plan) for one in combinations("test")]
    assert sorted(set(counts)) == [2, 3]
    assert len({clip.seed for clip in plan}) == 150
    assert plan_clips("test", 20, seed=2) == plan[:20]
    assert not {clip.seed for clip in plan} & {clip.seed for clip in plan_clips("test", 150, seed=3)}
    assert [clip.combination for clip in plan[:73]] != combinations("test")
    assert [clip.combination for clip in plan] == [clip.combination for clip in plan_clips("test", 150, seed=3)]
    with pytest.raises(UserError, match="0 clips of seed 2 came"):
        plan_clips("test", 0, seed=2)
    with pytest.raises(UserError, match="seed -1"):
        plan_clips("test", 1, seed=-1)
