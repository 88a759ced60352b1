"""`dcvideogen train-autoencoder`: from a recipe to a trained autoencoder."""

from pathlib import Path
from typing import Annotated

import typer


def train_autoencoder(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled recipe.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for checkpoints, metrics and the model.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value: key.of.the.recipe=value. Can be repeated.")
    ] = None,
) -> None:
    """Train an autoencoder, or go on where the same command was stopped (Ctrl-C stops it safely)."""
    import logging

    from dcvideogen.recipes.autoencoder import run_recipe
    from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("dcvideogen").setLevel(logging.INFO)
    done = run_recipe(read_recipe(AutoencoderRecipe, find_recipe(recipe), overrides or ()), output)
    typer.echo(f"{output / 'model'}: trained" if done else f"stopped; the same command goes on, see {output}")
