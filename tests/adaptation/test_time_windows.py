import pytest

from dcvideogen.adaptation.time_windows import TimeLayout, time_offset
from dcvideogen.errors import UserError

WAN, DC = TimeLayout(4, lone_first=True), TimeLayout(4, lone_first=False)


def frames_of(layout, latent, offset=0):
    """The frames of the clip that a latent covers."""
    return set(range(offset + layout.first_frame(latent), offset + layout.first_frame(latent + 1)))


def test_wan_begins_three_frames_later_and_sees_77_of_80():
    offset = time_offset(WAN, DC)
    assert offset == 3
    assert WAN.num_latents(80 - offset) == DC.num_latents(80) == 20
    assert frames_of(WAN, 0, offset) == {3}
    assert frames_of(DC, 0) == {0, 1, 2, 3}
    for latent in range(1, 20):
        assert frames_of(WAN, latent, offset) == frames_of(DC, latent)


def test_without_the_offset_windows_are_three_frames_apart():
    assert min(frames_of(DC, 5)) - min(frames_of(WAN, 5)) == 3


@pytest.mark.parametrize(
    ("base", "new", "offset"),
    [
        (TimeLayout(8, True), DC, 7),
        (WAN, TimeLayout(8, False), 3),
        (TimeLayout(6, True), TimeLayout(6, False), 5),
        (DC, DC, 0),
        (WAN, WAN, 0),
    ],
)
def test_whole_latents_of_the_finer_layout_fill_those_of_the_coarser(base, new, offset):
    assert time_offset(base, new) == offset
    coarse, fine = max(base.ratio, new.ratio), min(base.ratio, new.ratio)
    step = coarse // fine
    for latent in range(1, 6):
        many = [frames_of(new, k) for k in range(latent * coarse // new.ratio, (latent + 1) * coarse // new.ratio)]
        few = [
            frames_of(base, k, offset)
            for k in range(latent * coarse // base.ratio, (latent + 1) * coarse // base.ratio)
        ]
        assert len(many) * len(few) == step
        assert set().union(*many) == set().union(*few)


def test_ratios_that_never_meet_are_refused():
    with pytest.raises(UserError, match="latents of 6 and of 4 frames never cover the same ones"):
        time_offset(TimeLayout(6, True), DC)


@pytest.mark.parametrize(
    ("layout", "frames", "allowed"), [(WAN, 80, r"1 \+ a multiple of 4"), (DC, 81, "a multiple of 4")]
)
def test_frames_that_do_not_fill_latents_are_refused(layout, frames, allowed):
    with pytest.raises(UserError, match=f"{frames} frames do not fill whole latents; {allowed}"):
        layout.num_latents(frames)
