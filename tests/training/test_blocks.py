import torch

from dcvideogen.training.blocks import cut, dct_basis, dct_matrix, from_blocks, to_blocks


def test_the_dct_and_its_basis_are_orthonormal():
    assert (dct_matrix(32) @ dct_matrix(32).T - torch.eye(32)).abs().max() < 1e-5
    basis = dct_basis(torch.arange(3 * 2 * 4 * 4), 2, 4).flatten(1)
    assert (basis @ basis.T - torch.eye(96)).abs().max() < 1e-5


def test_blocks_go_back_where_they_came_from():
    video = torch.randn(2, 3, 4, 8, 12)
    blocks = to_blocks(video, 2, 4)
    assert torch.equal(blocks[0], video[0, :, :2, :4, :4].flatten())
    assert torch.equal(from_blocks(blocks, video.shape, 2, 4), video)


def test_cut_gives_the_parts_in_the_order_of_the_shuffle():
    pictures = torch.arange(2 * 4 * 4).view(1, 1, 2, 4, 4).expand(1, 3, 2, 4, 4)
    parts = cut(pictures, 2, 2)
    assert parts.shape == (8, 1, 3, 1, 2, 2)
    assert parts[:, 0, 0, 0, 0, 0].tolist() == [0, 2, 8, 10, 16, 18, 24, 26]
