"""base.py: what holds for every prior, and what a class with only the required members gets."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.weights import STABLE_DIFFUSION_SCHEDULER
from dsd_jax.priors import Picture, Viewpoint, completed, load_prior
from dsd_jax.priors.gaussian import GaussianMixture, GaussianPrior
from dsd_jax.schedule import NoiseSchedule

pytestmark = pytest.mark.usefixtures("quick_compilation")
SCHEDULE = NoiseSchedule.from_config(STABLE_DIFFUSION_SCHEDULER)
PICTURE = Picture(jnp.full((20, 20, 3), 0.5), jnp.asarray(0.2))
KEY = jax.random.key(0)
AROUND = Viewpoint(
    jnp.array([0.1, 2.0, 4.0]),
    jnp.array([0.3, -0.1, 1.2]),
    jnp.broadcast_to(jnp.eye(4).at[:3, 3].set(jnp.array([0.0, 1.0, 2.0])), (3, 4, 4)),
)


def first(tree):
    return jax.tree.map(lambda leaf: leaf[0], tree)


@pytest.fixture(scope="module")
def small_sd(tiny_sd):
    """tiny_sd, of 32 pixels and without its width."""
    prior = load_prior(tiny_sd)
    unet = prior.networks.unet
    config = dataclasses.replace(unet.config, sample_size=4)
    return prior.replace(networks=prior.networks._replace(unet=unet.clone(config=config)))


@pytest.fixture(scope="module")
def gaussian():
    mean = jnp.stack([jnp.full((4, 4, 3), 0.5), jnp.full((4, 4, 3), -0.5)])
    return GaussianPrior(GaussianMixture(jnp.zeros(2), mean, mean**2), SCHEDULE, ("red", "blue"))


@pytest.fixture(params=["without camera", "with camera", "of pictures", "gaussian"])
def prior(request):
    """Each kind of prior."""
    if request.param in ("without camera", "gaussian"):
        return request.getfixturevalue(
            "small_sd" if request.param == "without camera" else "gaussian"
        )
    folder = {"with camera": "tiny_prior_folder", "of pictures": "zero123_folder"}[request.param]
    return load_prior(request.getfixturevalue(folder))


def told(prior):
    """What it takes, and what it does not."""
    is_image = hasattr(prior, "encode_image")
    return (PICTURE, "a red house") if is_image else ("a red house", PICTURE)


def test_every_kind_has_every_member(prior):
    assert completed(prior) is prior
    h, w, c = prior.latent_shape
    condition = prior.condition(told(prior)[0], negative_prompt="blue", view_prompts="perp-neg")
    view, key = first(AROUND), KEY
    assert prior.tells_apart(condition) in ("cameras", "sides", "words", "nothing")
    assert prior.samples_per_prediction(condition) in (2, 4)
    assert prior.warnings("a red house") == []
    assert not prior.denoises_together or prior.tells_apart(condition) == "cameras"
    assert prior.networks is None or {"unet", "vae"} <= set(prior.networks._fields)
    steps = prior.for_steps()

    @jax.jit
    def run(params, condition, image):
        x = steps.encode(params, image)
        assert x.shape == (h, w, c)
        adapter = steps.init_adapter(key, params, 1)
        plain = steps.prediction_at(params, condition, view)(x, 500)
        adapted = steps.adapt(params, adapter)
        unchanged = steps.prediction_at(adapted, condition, view)(x, 500)
        return steps.decode(params, steps.denoiser_at(params, condition, view)(7.5)(x, 500)), (
            plain,
            unchanged,
        )

    image, (plain, unchanged) = run(steps.params, condition, PICTURE.rgb)
    assert image.shape == (prior.image_size, prior.image_size, 3)
    assert plain.shape == (h, w, c) and jnp.abs(plain).max() > 0
    np.testing.assert_allclose(plain, unchanged, rtol=1e-5, atol=1e-6)


def test_every_kind_refuses_what_it_does_not_take_in_one_line(prior):
    message = r"takes an? (prompt|image) and not a (picture|prompt)"
    with pytest.raises(ValueError, match=message) as error:
        prior.condition(told(prior)[1])
    assert "\n" not in str(error.value)


def test_views_under_vmap_are_those_in_a_loop(prior):
    """Where they are denoised one by one; a single view of a prior with a camera is, too."""
    condition = prior.condition(told(prior)[0])
    x = jax.random.normal(KEY, (3, *prior.latent_shape))

    @jax.jit
    def one(params, condition, viewpoint, x):
        return prior.denoiser_at(params, condition, viewpoint)(3.0)(x, 300)

    args = prior.params, condition
    together = jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0)))(*args, AROUND, x)
    for i in range(3):
        alone = one(*args, jax.tree.map(lambda leaf, i=i: leaf[i], AROUND), x[i])
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-4)


# ---- a prior of one's own -----------------------------------------------------------------------


class Plain:
    """What a prior must have, and no more: all pictures are of one grey, told by a prompt."""

    schedule, latent_shape, image_size, params = SCHEDULE, (2, 2, 3), 2, 0.25

    def encode(self, params, image):
        return jax.image.resize(image, self.latent_shape, "linear")

    def decode(self, params, x):
        return x

    def condition(self, told, *, negative_prompt="", view_prompts="perp-neg"):
        return jnp.float32(len(told))

    def denoiser_at(self, params, condition, viewpoints):
        return lambda scale: lambda x, t: x - params * scale * condition * viewpoints.azimuth


def test_a_class_with_only_the_required_members_is_completed():
    prior, own = completed(Plain()), Plain()
    told, view, x = prior.condition("grey"), first(AROUND), jnp.ones((2, 2, 3))
    assert prior.networks is None and prior.denoises_together is False
    assert prior.tells_apart(told) == "cameras" and prior.samples_per_prediction(told) == 2
    assert prior.warnings("grey") == [] and prior.for_steps() is prior
    assert (prior.latent_shape, prior.params) == ((2, 2, 3), 0.25)
    np.testing.assert_array_equal(
        prior.prediction_at(0.5, told, view)(x, 1), own.denoiser_at(0.5, told, view)(1.0)(x, 1)
    )
    for missing in (lambda: prior.init_adapter(KEY, 0.5, 4), lambda: prior.adapt(0.5, 0.1)):
        with pytest.raises(ValueError, match=r"^this prior has no adapter, .*\(vsd, asd, sim\)$"):
            missing()
    assert completed(prior) is prior
    assert copy.copy(prior).params == copy.deepcopy(prior).params == 0.25
    with pytest.raises(AttributeError, match="'Plain' object has no attribute 'folder'"):
        _ = prior.folder  # pyright: ignore[reportAttributeAccessIssue]


def test_what_a_class_says_by_itself_goes_before_the_defaults():
    class More(Plain):
        denoises_together = True

        def tells_apart(self, condition):
            return "nothing"

        def for_steps(self):
            stepping = More()
            stepping.params = 0.75
            return stepping

    prior = completed(More())
    assert prior.denoises_together and prior.tells_apart(None) == "nothing"
    assert prior.samples_per_prediction(None) == 2
    steps = prior.for_steps()
    assert steps.params == 0.75 and steps.samples_per_prediction(None) == 2


def test_a_completed_prior_is_a_pytree_where_the_prior_is_one():
    @jax.tree_util.register_pytree_node_class
    class Leaves(Plain):
        def __init__(self, params):
            self.params = params

        def tree_flatten(self):
            return (self.params,), None

        @classmethod
        def tree_unflatten(cls, _, leaves):
            return cls(*leaves)

    prior = completed(Leaves(jnp.float32(2.0)))
    assert jax.tree.leaves(prior) == [2.0]
    assert jax.jit(lambda prior: 3 * prior.params)(prior) == 6.0


def test_what_is_no_prior_is_told_what_it_lacks():
    class Half:
        schedule, latent_shape, image_size, params = SCHEDULE, (2, 2, 3), 2, None

        def encode(self, params, image):
            return image

    message = "^Half is no prior: it has no decode, no condition, no denoiser_at$"
    with pytest.raises(TypeError, match=message):
        completed(Half())
