import pytest
import torch

from dcvideogen.data.batch import ClipBatch


@pytest.mark.parametrize("shape", [(2, 3, 4, 8), (2, 1, 4, 8, 8), (3, 3, 4, 8, 8)])
def test_a_batch_is_clips_in_colour_with_a_name_each(shape):
    assert ClipBatch(torch.zeros(2, 3, 4, 8, 8), ("a", "b"), 40).first == 0
    with pytest.raises(ValueError, match="B names are allowed"):
        ClipBatch(torch.zeros(shape), ("a", "b"), 40)
