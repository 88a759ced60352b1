import torch

from dcvideogen.data.motion import Window, film, halved_copies


def test_a_camera_that_stands_still_shows_the_photograph_itself():
    photo = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8)
    window = Window(row=10, column=12, side=16, angle=0)
    frames = film(halved_copies(photo, 64), window, window, 3, 16)
    expected = photo[:, 2:18, 4:20].float() / 127.5 - 1
    assert frames.shape == (3, 3, 16, 16)
    assert (frames - expected[:, None]).abs().max() < 1e-4


def test_a_pan_moves_the_picture_and_a_turn_keeps_its_centre():
    ramp = torch.arange(64).view(1, 1, 64).expand(3, 64, 64).to(torch.uint8)
    pan = film([ramp], Window(32, 20, 16, 0), Window(32, 24, 16, 0), 5, 16)
    assert ((pan[0].mean(dim=(1, 2)).diff() * 127.5) - 1).abs().max() < 1e-3  # one column per frame
    turn = film([ramp], Window(32, 32, 16, 0), Window(32, 32, 16, 1.5708), 2, 16)
    rows = turn[0, 1].diff(dim=0).mean() * 127.5
    assert abs(float(rows.abs()) - 1) < 0.01  # what ran along columns now runs along rows
    assert (turn[0, 1].mean() - turn[0, 0].mean()).abs() < 1e-3


def test_a_distant_view_is_taken_from_a_smaller_copy_so_that_it_does_not_alias():
    stripes = (torch.arange(256) % 2 * 255).view(1, 1, 256).expand(3, 256, 256).to(torch.uint8)
    window = Window(128, 128, 256, 0)
    far = film(halved_copies(stripes, 16), window, window, 1, 64)
    assert far[..., 1:-1].abs().max() < 0.05  # grey, as the eye would see it
