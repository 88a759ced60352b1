"""`dcvideogen adapt`: from a trained video diffusion model and an autoencoder to the same model in its latents."""

import os
from pathlib import Path
from typing import Annotated

import typer

from dcvideogen.cli import console
from dcvideogen.errors import UserError


def adapt(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a bundled recipe.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the cache, the stages and the adapted model.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="Run this stage alone, on what the ones before it made.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what every stage would do and cost; run and write nothing.")
    ] = False,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value: key.of.the.recipe=value. Can be repeated.")
    ] = None,
) -> None:
    """Adapt a video diffusion model to another autoencoder, or go on where the same command was stopped."""
    import logging

    from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
    from dcvideogen.recipes.recipe import find_recipe, read_recipe

    first = os.environ.get("RANK", "0") == "0"  # torchrun: one process speaks for all
    if not first:
        logging.getLogger("dcvideogen").setLevel(logging.WARNING)
    settings = read_recipe(AdaptationRecipe, find_recipe(recipe), overrides or ())
    if plan:
        from dcvideogen.recipes.adaptation_plan import plan_lines

        for line in plan_lines(settings, output, only=stage):
            console.out.print(line, markup=False, soft_wrap=True)
        return

    if output is None:
        raise UserError("-o is missing; give the folder for the cache, the stages and the adapted model, or --plan")
    from dcvideogen.recipes.adaptation import run_adaptation

    done = run_adaptation(settings, output, only=stage)
    if not first:
        return
    if not done:
        told = f"stopped; the same command goes on, see {output}"
    elif stage is not None:
        told = f"{output / stage}: done"
    else:
        told = f"{output / 'export'}: adapted"
    console.out.print(told, markup=False, soft_wrap=True)
