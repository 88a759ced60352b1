"""`dcvideogen train-autoencoder`: from a recipe and a folder of videos to a trained autoencoder."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import console
from dcvideogen.errors import UserError


def train_autoencoder(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled recipe.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for checkpoints, metrics and the model.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of videos and images, manifest or tar shard; --set data.source=...")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Run this stage alone, on the model of the one before.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Print the stages and what they cost; train nothing.")] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value: key.of.the.recipe=value. Can be repeated.")
    ] = None,
) -> None:
    """Train an autoencoder, or go on where the same command was stopped (Ctrl-C saves and stops)."""
    import logging

    from dcvideogen.recipes.recipe import AutoencoderRecipe, find_recipe, read_recipe

    if os.environ.get("RANK", "0") != "0":  # torchrun: one process speaks for all
        logging.getLogger("dcvideogen").setLevel(logging.WARNING)
    changes = [*(overrides or ()), *([f"data.source={json.dumps(str(data))}"] if data is not None else [])]
    settings = read_recipe(AutoencoderRecipe, find_recipe(recipe), changes)
    if plan:
        from dcvideogen.recipes.plan import plan_lines

        for line in plan_lines(settings, only=stage):
            console.out.print(line, markup=False, soft_wrap=True)
        return

    if output is None:
        raise UserError("-o is missing; give the folder for checkpoints, metrics and the model, or --plan")
    from dcvideogen.recipes.autoencoder import run_recipe

    done = run_recipe(settings, output, only=stage)
    if os.environ.get("RANK", "0") != "0":
        return
    if not done:
        told = f"stopped; the same command goes on, see {output}"
    else:
        told = f"{output / 'model'}: trained\nnext: dcvideogen evaluate autoencoder --model {output / 'model'} --data "
        told += f"{settings.data.source} -o {output / 'report'}"
    console.out.print(told, markup=False, soft_wrap=True)
