"""A tiny Wan transformer with random weights, what it takes, and a LoRA for all its linear layers."""

import torch

from dcvideogen.adaptation.lora_weights import LoraPair


def make_wan(seed=0, **overrides):
    from diffusers import WanTransformer3DModel

    fields = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12,
        "in_channels": 4, "out_channels": 4, "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2,
        "rope_max_seq_len": 32,
    } | overrides  # fmt: skip
    if fields.get("image_dim"):
        fields["added_kv_proj_dim"] = fields["num_attention_heads"] * fields["attention_head_dim"]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return WanTransformer3DModel(**fields).eval().requires_grad_(False)


def make_pipeline(wan):
    """A WanPipeline around the transformer alone, which is all that LoRA loading asks of it."""
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    return WanPipeline(tokenizer=None, text_encoder=None, vae=None, scheduler=FlowMatchEulerDiscreteScheduler(),
                       transformer=wan)  # fmt: skip


def wan_inputs(wan, seed=1):
    generator = torch.Generator().manual_seed(seed)
    patch = wan.config.patch_size[1]
    return {
        "hidden_states": torch.randn(2, wan.config.in_channels, 2, 2 * patch, 3 * patch, generator=generator),
        "timestep": torch.tensor([300.0, 900.0]),
        "encoder_hidden_states": torch.randn(2, 5, wan.config.text_dim, generator=generator),
    }


def random_lora(wan, seed=2):
    """Ranks 1 to 3, alphas 1 to 4, factors that change the output a lot."""
    generator = torch.Generator().manual_seed(seed)
    lora = {}
    for number, (name, module) in enumerate(wan.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "proj_out":
            out, width = module.weight.shape
            rank, alpha = 1 + number % 3, 1.0 + number % 4
            down = torch.randn(rank, width, generator=generator) / width**0.5
            lora[name] = LoraPair(down, torch.randn(out, rank, generator=generator) / 2, alpha)
    return dict(sorted(lora.items()))
