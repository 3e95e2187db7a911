"""What Stable Diffusion's family makes of a prompt, on tiny_sd, and what it refuses."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.engine.task import warnings_of
from dsd_jax.models.clip_text import ClipText
from dsd_jax.models.tokenizer import read_tokenizer
from dsd_jax.priors import Picture
from dsd_jax.priors.stable_diffusion import Prior, load
from dsd_jax.recipe.recipe import Recipe, changed, with_method

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
    tokenizer = read_tokenizer(prior.folder / "tokenizer")
    told = prior.replace(folder=tiny_prior_folder, tokenizer=tokenizer)
    assert told.warnings("a red house") == []
    assert told.warnings("a red unicorn, purple") == [
        "the prior has never seen the words: unicorn, purple"
    ]


def test_the_words_that_are_not_read_are_named_and_are_no_view_s(prior, monkeypatch):
    """tiny_sd's tokenizer knows letters alone: 77 ids are 75 of them, 14 in ", overhead view"."""
    prompt = " ".join(["abcdefghi"] * 8)
    (line,) = prior.warnings(prompt)
    assert line == (
        "the prompt is longer than the 77 tokens that the prior reads, the view's words among "
        'them; not read are the words "abcdefghi abcdefghi"'
    )
    asked = []
    monkeypatch.setattr(
        Prior, "encode_prompt", lambda self, params, told: asked.append(told) or told
    )
    prior.condition(prompt)
    kept = " ".join(["abcdefghi"] * 6)
    assert asked[0][:3] == [prompt, f"{kept}, front view", f"{kept}, side view"]
    assert prior.warnings(kept) == []
    ids = prior.tokenize(asked[0][1:5])
    ends = prior.tokenize([", front view", ", side view", ", back view", ", overhead view"])
    for row, end in zip(ids, ends, strict=True):
        words = [i for i in end if i < 517]
        told = [i for i in row if i < 517]
        assert told[-len(words) :] == words


def test_a_prior_with_a_camera_needs_no_words_of_views(tiny_prior_folder):
    prior = load(tiny_prior_folder)
    assert prior.warnings("a red house") == []
    (line,) = prior.warnings("a red house a red house a red house")
    assert line == (
        "the prompt is longer than the 8 tokens that the prior reads; not read are the words "
        '"a red house"'
    )


def test_a_negative_prompt_is_warned_of_like_a_prompt(tiny_prior_folder):
    prior, long = load(tiny_prior_folder), "a red house a red house"
    spoken = changed(Recipe(), negative_prompt=f"{long} hat")
    lines = warnings_of(prior, ["a red house"], [Recipe(), spoken, spoken])
    assert lines == [
        "the negative prompt is longer than the 8 tokens that the prior reads; not read are the "
        'words "hat"',
        "the prior has never seen the words of the negative prompt: hat",
    ]
    bad = with_method(Recipe(), "nfsd", bad_text=f"{long} red")
    (line,) = warnings_of(prior, ["a house"], [bad])
    assert line.startswith("the negative prompt is longer than the 8 tokens")


def test_ids_beyond_the_text_encoder_are_refused(prior):
    config = replace(prior.networks.text_encoder.config, vocab_size=518)
    small = prior.replace(networks=prior.networks._replace(text_encoder=ClipText(config)))
    with pytest.raises(ValueError) as error:
        small.condition("abc")
    assert str(error.value) == (
        f"{prior.folder}/tokenizer: the tokenizer gives id 518, and the text encoder knows 0 to "
        "517: they are of different models"
    )


def test_steps_need_no_text_encoder(prior):
    assert prior.for_steps().params.keys() == {"unet", "vae"}
    assert prior.params.keys() == {"unet", "vae", "text_encoder"}
