"""`dcvideogen models`: the bundled models and the presets."""

import json

from dcvideogen.cli.console import out


def models() -> None:
    """List bundled models and presets with compression, latent channels and parameters."""
    import torch
    from rich import box
    from rich.table import Table

    from dcvideogen.autoencoder.presets import PRESETS, make_autoencoder
    from dcvideogen.cli.describe import model_on_meta, parameters
    from dcvideogen.weights import bundled_adapters, bundled_models, bundled_pipelines

    def table(title: str, named: dict) -> Table:
        result = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        result.add_column("name", no_wrap=True)
        for column in ("ratio", "channels", "chunk", "encoder", "decoder"):
            result.add_column(column, justify="right", no_wrap=True)
        for name, model in named.items():
            config = model.config
            sizes = (f"{model.compression_ratio:g}", str(config.latent_channels), str(config.chunk_frames))
            result.add_row(name, *sizes, parameters(model.encoder), parameters(model.decoder))
        return result

    bundled = {name: model_on_meta(folder) for name, folder in bundled_models().items()}
    if bundled:
        out.print(table("Bundled models: --model NAME", bundled))
    else:
        out.print("No model is bundled.")
    made = dict.fromkeys(bundled_adapters(), "adapter: `generate --model`")
    for name, folder in bundled_pipelines().items():
        made[name] = f"{json.loads((folder / 'model_index.json').read_text())['_class_name']}: base of a recipe"
    if made:
        others = Table(title="Bundled video models", title_justify="left", box=box.SIMPLE_HEAD)
        others.add_column("name", no_wrap=True)
        others.add_column("what it is", no_wrap=True)
        for name, what in sorted(made.items()):
            others.add_row(name, what)
        out.print(others)
    with torch.device("meta"):
        presets = {name: make_autoencoder(name) for name in PRESETS}
    out.print(table("Presets: sizes without weights, for recipes and make_autoencoder", presets))
