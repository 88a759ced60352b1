"""A tiny random text-to-video pipeline of real classes, whose transformer and autoencoder share a latent space."""

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel

from dcvideogen.adaptation.folder import AdaptationInfo, SamplingDefaults, Trained
from dcvideogen.adaptation.text import load_text_encoder
from dcvideogen.autoencoder.presets import make_autoencoder
from dcvideogen.pipelines.memory_models import networks_of
from dcvideogen.pipelines.text_to_video import DCVideoGenPipeline
from dcvideogen.weights import bundled_pipelines

TEXT_DIM = 64


def tiny_autoencoder():
    model, generator = make_autoencoder("dcae-tiny-f32t4c16").eval(), torch.Generator().manual_seed(0)
    with torch.no_grad():  # fresh residual blocks are the identity
        for parameter in model.parameters():
            mean, std = (0.5, 0.3) if parameter.ndim == 1 else (0.0, parameter[0].numel() ** -0.5)
            parameter.normal_(mean, std, generator=generator)
    model.register_to_config(latent_space_id=model.fingerprint())
    return model


def tiny_transformer(seed=0, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {
            "patch_size": (1, 1, 1), "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16,
            "out_channels": 16, "text_dim": text_encoder().model.config.d_model, "freq_dim": 32, "ffn_dim": 32,
            "num_layers": 2, "rope_max_seq_len": 64,
        }  # fmt: skip
        return WanTransformer3DModel(**{**sizes, **changes}).eval()


def text_encoder():
    return load_text_encoder(
        bundled_pipelines()["shapes-base"], max_sequence_length=64, device=torch.device("cpu"), dtype=torch.float32
    )


def tiny_info(autoencoder, **changes):
    fields = {
        "latent_space_id": autoencoder.config.latent_space_id, "latent_channels": 16, "spatial_ratio": 32,
        "temporal_ratio": 4, "base": "0" * 16, "family": "wan",
        "sampling": SamplingDefaults(steps=3, guidance=3.0, shift=3.0),
        "trained": Trained(max_sequence_length=32, sizes=((64, 64, 8),)),
    }  # fmt: skip
    return AdaptationInfo(**{**fields, **changes})


def tiny_networks(**changes):
    """To plan with; with changes of the transformer."""
    return networks_of(text_encoder().model, [tiny_transformer(**changes)], tiny_autoencoder())


def tiny_pipeline(scheduler=None, **changes):
    autoencoder, text = tiny_autoencoder(), text_encoder()
    parts = {
        "tokenizer": text.tokenizer, "text_encoder": text.model, "transformer": tiny_transformer(),
        "autoencoder": autoencoder, "scheduler": scheduler or FlowMatchEulerDiscreteScheduler(shift=3.0),
        "adaptation": tiny_info(autoencoder).model_dump(mode="json"),
    }  # fmt: skip
    pipeline = DCVideoGenPipeline(**{**parts, **changes})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
