"""Costs counted with few blocks are those of the whole model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dcvideogen.adaptation.transformer_cost import block_lists, cost_of, cut


@pytest.fixture
def wan():
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        return WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4,
            text_dim=16, freq_dim=32, ffn_dim=32, num_layers=5, rope_max_seq_len=32,
        )  # fmt: skip


def velocity(transformer):
    with torch.device("meta"):
        return transformer(torch.empty(1, 4, 3, 4, 6), torch.empty(1), torch.empty(1, 8, 16), return_dict=False)[0]


def test_a_forward_pass_costs_what_torch_counts_on_the_whole_model(wan):
    with FlopCounterMode(display=False) as flops, torch.no_grad():
        velocity(wan)
    assert cost_of(wan, velocity).forward == flops.get_total_flops()
    assert len(wan.blocks) == 5


def test_attention_costs_two_products_forwards_and_five_backwards():
    """Of softmax(q k') v with 6 queries, 10 keys and width 4."""

    class Attention(torch.nn.Module):
        def forward(self):
            q, k, v = (torch.empty(1, 1, n, 4, device="meta", requires_grad=True) for n in (6, 10, 10))
            return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    cost = cost_of(Attention(), lambda module: module())
    product = 2 * 6 * 10 * 4
    assert (cost.forward, cost.backward) == (2 * product, 5 * product)
    assert cost.kept == 4 * (6 + 10 + 10 + 6)  # q, k, v and the output, and no scores


def test_training_less_costs_less_backwards_and_nothing_costs_none(wan):
    everything = cost_of(wan, velocity)
    wan.requires_grad_(False)
    nothing = cost_of(wan, velocity)
    wan.patch_embedding.requires_grad_(True)
    embedder = cost_of(wan, velocity)
    assert nothing.backward == 0
    assert nothing.forward < embedder.backward < everything.backward
    assert everything.step(True) == everything.step(False) + everything.forward


def test_checkpointing_keeps_the_blocks_inputs_and_one_block(wan):
    cost = cost_of(wan, velocity)
    assert cost.kept_checkpointed < 0.5 * cost.kept
    tokens = 3 * 2 * 3
    assert cost.kept_checkpointed > 5 * tokens * 24


def test_blocks_that_were_cut_off_come_back(wan):
    (blocks,) = lists = block_lists(wan)
    before = list(blocks)
    with cut(lists, [2]):
        assert len(wan.blocks) == 2
    assert list(wan.blocks) == before
