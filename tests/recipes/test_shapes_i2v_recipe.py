"""The recipe of the shapes world's image-to-video model is that of its text-to-video model, and the image."""

import pytest

from dcvideogen.errors import UserError
from dcvideogen.recipes.adaptation_recipe import AdaptationRecipe
from dcvideogen.recipes.recipe import find_recipe, read_recipe


def plain(name, *changes):
    return read_recipe(AdaptationRecipe, find_recipe(name), changes).model_dump(mode="json")


def test_image_to_video_is_adapted_as_text_to_video_is(tmp_path):
    base = f"base={tmp_path}"
    image, text = plain("shapes-i2v", base), plain("shapes-dc", base)
    assert image["cache"]["image_to_video"]
    assert (image["cache"].pop("image_condition"), text["cache"].pop("image_condition")) == ("alone", "zeros")
    assert (image.pop("first_latent"), text.pop("first_latent")) == ("given", "generated")
    for name in ("image_to_video", "held_out"):
        image["cache"][name] = text["cache"][name]
    assert image.pop("export")["dtype"] == "float32"  # what is extracted from it is exact
    text.pop("export")
    for recipe in (image, text):  # how long each was trained is its own affair
        for stage in recipe["stages"]:
            stage["train"].pop("steps")
    assert image == text


def test_the_remedies_are_settings():
    recipe = plain(
        "shapes-i2v", "first_latent=generated", "cache.image_condition=chunk", "stages.0.flow.image_dropout=0.1",
        "sampling.image_guidance=1.5",
    )  # fmt: skip
    assert recipe["cache"]["image_condition"] == "chunk"
    assert recipe["stages"][0]["flow"]["image_dropout"] == 0.1
    assert recipe["sampling"]["image_guidance"] == 1.5


def test_a_first_latent_that_is_given_has_to_be_the_images_own_and_has_no_image_guidance():
    for change in ("cache.image_condition=zeros", "cache.image_to_video=false"):
        with pytest.raises(UserError, match=r"set cache\.image_to_video to true and cache\.image_condition to alone"):
            plain("shapes-i2v", change, *(["cache.image_condition=zeros"] if "false" in change else []))
    with pytest.raises(UserError, match="image_guidance came with a first latent that is given"):
        plain("shapes-i2v", "sampling.image_guidance=1.5")
