"""What Stable Diffusion's family makes of a prompt, on tiny_sd, and what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.priors import Picture
from dsd_jax.priors.stable_diffusion import Prior, load

pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture(scope="module")
def prior(tiny_sd):
    return load(tiny_sd)


def test_a_condition_is_the_prompt_its_views_and_the_negative_prompt_in_one_call(prior):
    """One call, so that the encoder is compiled once."""
    calls = []

    class Counting(Prior):
        def encode_prompt(self, params, prompts):
            calls.append(prompts)
            return super().encode_prompt(params, prompts)

    counting = Counting(prior.params, prior.schedule, prior.networks, prior.folder)
    text = counting.condition("abc", negative_prompt="bad", view_prompts="words")
    views = ["abc, front view", "abc, side view", "abc, back view", "abc, overhead view"]
    assert calls == [["abc", *views, "bad"]]
    expected = prior.encode_prompt(prior.params, *calls)
    np.testing.assert_array_equal([text.plain, *text.views, text.uncond], expected)
    assert text.view_prompts == "words" and len(jax.tree.leaves(text)) == 3


def test_what_is_not_one_prompt_is_refused_in_one_line(prior):
    picture = Picture(jnp.ones((4, 4, 3)), jnp.zeros(()))
    for told, message in [
        (picture, f"{prior.folder} takes a prompt and not a picture; toybox-1to3 and .* take one"),
        (["abc"], "condition takes one prompt, a str, not list"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}$"):
            prior.condition(told)
    message = "^view_prompts 'word' is not one of perp-neg, words, none$"
    with pytest.raises(ValueError, match=message):
        prior.condition("abc", view_prompts="word")
    for takes_a_list in (prior.tokenize, partial(prior.encode_prompt, prior.params)):
        message = r"^give a list of prompts, \['abc'\], or use condition$"
        with pytest.raises(ValueError, match=message):
            takes_a_list("abc")


def test_unknown_words_are_named_where_the_folder_knows_some(prior, tiny_prior_folder):
    assert prior.warnings("a purple unicorn") == []
    told = prior.replace(folder=tiny_prior_folder)
    assert told.warnings("a red house") == []
    assert told.warnings("a red unicorn, purple") == [
        "the prior has never seen the words: unicorn, purple"
    ]


def test_steps_need_no_text_encoder(prior):
    assert prior.for_steps().params.keys() == {"unet", "vae"}
    assert prior.params.keys() == {"unet", "vae", "text_encoder"}
