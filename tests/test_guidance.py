"""Guidance on networks simple enough to work out by hand."""

import authors
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import guidance
from dsd_jax.schedule import NoiseSchedule

AUTHORS = authors.recorded()


class Recorder:
    """Network whose eps is x + conditioning["shift"]; remembers the batch sizes it was given."""

    def __init__(self, dtype=jnp.float32):
        self.batches, self.dtype = [], dtype

    def __call__(self, x_t, t, conditioning):
        assert t.shape == x_t.shape[:1] == conditioning["shift"].shape[:1]
        self.batches.append(x_t.shape[0])
        return (x_t + conditioning["shift"]).astype(self.dtype)


def shift(*values):
    """Conditioning that shifts an image [1, 1, c] by `values`."""
    return {"shift": jnp.array(values, jnp.float32).reshape(1, 1, -1)}


X = jnp.zeros((1, 1, 2))
TEXT, UNCOND = shift(3.0, 1.0), shift(1.0, 1.0)
NEGATIVES = jax.tree.map(lambda *n: jnp.stack(n), shift(2.0, 5.0), shift(1.0, 2.0))
WEIGHTS = jnp.array([-0.5, -0.25])


@pytest.mark.parametrize(
    ("scale", "batch", "expected"),
    [(0.0, 1, (1, 1)), (1.0, 1, (3, 1)), (2.0, 2, (5, 1)), (-1.0, 2, (-1, 1)), (7.5, 2, (16, 1))],
)
def test_classifier_free(scale, batch, expected):
    network = Recorder()
    eps = guidance.classifier_free(network, TEXT, UNCOND)(scale)(X, 500)
    np.testing.assert_allclose(eps[0, 0], expected)
    assert network.batches == [batch]


@pytest.mark.parametrize(
    ("scale", "batch", "expected"),
    # direction (2, 0); orthogonal parts of the negatives (0, 4) and (0, 1); push (0, -2.25)
    [(0.0, 1, (1, 1)), (1.0, 4, (3, -1.25)), (2.0, 4, (5, -3.5))],
)
def test_perp_neg(scale, batch, expected):
    network = Recorder()
    denoiser = guidance.perp_neg(network, TEXT, UNCOND, NEGATIVES, WEIGHTS)(scale)
    np.testing.assert_allclose(denoiser(X, 500)[0, 0], expected)
    assert network.batches == [batch]


@pytest.mark.parametrize("camera", range(6))
def test_perp_neg_is_the_authors(camera):
    """From what the network said to the text, the unconditional and the two negative prompts."""
    prompts, weights = AUTHORS["perp_neg_embeddings"][camera], AUTHORS["perp_neg_weights"][camera]

    def network(x_t, t, conditioning):
        np.testing.assert_array_equal(conditioning, prompts)
        return jnp.asarray(AUTHORS["eps"][camera])

    text, uncond, negatives = prompts[0], prompts[1], prompts[2:]
    denoiser = guidance.perp_neg(network, text, uncond, negatives, jnp.asarray(weights))(7.5)
    eps = denoiser(jnp.zeros((2, 2, 2)), AUTHORS["t"][camera])
    authors.assert_relative(eps, AUTHORS["eps_guided"][camera])


def test_perp_neg_projects_each_view_by_itself():
    def stacked(*views):
        return {"shift": jnp.stack([v["shift"] for v in views])}

    alone = [
        guidance.perp_neg(
            Recorder(), text, UNCOND, jax.tree.map(lambda n: n[None], neg), -jnp.ones(1)
        )
        for text, neg in [(TEXT, shift(2.0, 5.0)), (shift(0.0, -2.0), shift(7.0, 1.0))]
    ]
    together = guidance.perp_neg(
        Recorder(),
        stacked(TEXT, shift(0.0, -2.0)),
        stacked(UNCOND, UNCOND),
        jax.tree.map(lambda n: n[None], stacked(shift(2.0, 5.0), shift(7.0, 1.0))),
        -jnp.ones(1),
    )
    expected = jnp.stack([denoiser_at(3.0)(X, 500) for denoiser_at in alone])
    np.testing.assert_allclose(together(3.0)(jnp.stack([X, X]), 500), expected, rtol=1e-6)


def test_without_weights_perp_neg_is_classifier_free_guidance():
    perp_neg = guidance.perp_neg(Recorder(), TEXT, UNCOND, NEGATIVES, jnp.zeros(2))
    plain = guidance.classifier_free(Recorder(), TEXT, UNCOND)
    np.testing.assert_allclose(perp_neg(7.5)(X, 500), plain(7.5)(X, 500))


def test_perp_neg_is_finite_where_text_and_uncond_agree():
    eps = guidance.perp_neg(Recorder(), UNCOND, UNCOND, NEGATIVES, WEIGHTS)(7.5)(X, 500)
    assert np.isfinite(eps).all()


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_half_precision_networks_are_combined_in_float32(scale):
    cfg = guidance.classifier_free(Recorder(jnp.bfloat16), TEXT, UNCOND)
    perp_neg = guidance.perp_neg(Recorder(jnp.bfloat16), TEXT, UNCOND, NEGATIVES, WEIGHTS)
    assert cfg(scale)(X, 500).dtype == perp_neg(scale)(X, 500).dtype == jnp.float32


@pytest.mark.parametrize("camera", range(6))
def test_blend_views_gives_the_authors_prompts(camera):
    views = jnp.asarray(AUTHORS["text_embeddings_vd"])  # side, front, back, overhead
    angles = AUTHORS["azimuth_deg"][camera], AUTHORS["elevation_deg"][camera]
    text, negatives, weights = jax.jit(guidance.blend_views)(*views, *angles)
    np.testing.assert_allclose(text, AUTHORS["perp_neg_embeddings"][camera, 0], atol=1e-5)
    np.testing.assert_allclose(weights, AUTHORS["perp_neg_weights"][camera], atol=1e-5)
    if weights.any():  # overhead nothing is pushed away, and the authors fill in anything
        np.testing.assert_allclose(negatives, AUTHORS["perp_neg_embeddings"][camera, 2:], atol=1e-6)


def test_blend_views_knows_no_sign_and_no_full_turn():
    views = jnp.asarray(AUTHORS["text_embeddings_vd"])
    expected = guidance.blend_views(*views, 130.0, 0.0)
    for azimuth in (-130.0, 230.0, 490.0):
        for a, b in zip(guidance.blend_views(*views, azimuth, 0.0), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("t", [699, 700, 701])
def test_guidance_acts_only_below_a_timestep(t):
    plain = guidance.classifier_free(Recorder(), TEXT, UNCOND)
    limited = jax.jit(guidance.below(plain, 700)(5.0))
    expected = plain(1.0 if t > 700 else 5.0)(X, t)
    np.testing.assert_allclose(limited(X, t), expected)


def test_rescaled_guidance_keeps_the_contrast_of_the_text():
    """By hand: at share 1 the deviation of xhat is that of the unguided one."""
    schedule = NoiseSchedule.from_config({})
    x, t = jax.random.normal(jax.random.key(0), (4, 4, 3)), 400
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)

    def network(x, t, told):
        return told[:, None, None, None] * jnp.tanh(x)

    plain = guidance.classifier_free(network, jnp.ones(()), jnp.zeros(()))

    def xhat(denoiser_at, scale):
        return (x - sigma * denoiser_at(scale)(x, t)) / alpha

    guided, wanted = xhat(plain, 5.0), xhat(plain, 1.0)
    for share in (0.5, 1.0):
        found = xhat(guidance.rescaled(plain, share, schedule), 5.0)
        factor = share * np.std(wanted) / np.std(guided) + 1 - share
        np.testing.assert_allclose(found, factor * guided, rtol=1e-4, atol=1e-5)
    assert float(jnp.std(found)) == pytest.approx(float(jnp.std(wanted)), rel=1e-4)


@pytest.mark.parametrize("k", [0.25, 4.0])
def test_at_another_temperature_a_gaussian_has_another_variance(k):
    """k divides it: exact, at every t, where sigma is the Gaussian's own deviation."""
    schedule, sigma = NoiseSchedule.from_config({}), 0.7

    def gaussian(variance):
        def eps(x, t):
            return (
                schedule.sigma(t) * x / (schedule.alpha(t) ** 2 * variance + schedule.variance(t))
            )

        return lambda scale: eps

    found = guidance.at_temperature(gaussian(sigma**2), k, sigma, schedule)
    x = jnp.array([0.5, -2.0])
    for t in (0, 300, 999):
        np.testing.assert_allclose(found(5.0)(x, t), gaussian(sigma**2 / k)(5.0)(x, t), rtol=1e-5)
    plain = gaussian(1.0)
    assert guidance.at_temperature(plain, 1.0, sigma, schedule) is plain


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_without_guidance_nothing_is_rescaled(scale):
    plain = guidance.classifier_free(
        lambda x, t, told: told[:, None] * x, jnp.ones(()), jnp.zeros(())
    )
    again = guidance.rescaled(plain, 0.7, NoiseSchedule.from_config({}))
    x = jnp.arange(3.0)
    np.testing.assert_array_equal(again(scale)(x, 10), plain(scale)(x, 10))
    assert guidance.rescaled(plain, 0.0, NoiseSchedule.from_config({})) is plain
