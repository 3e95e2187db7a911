"""What every distillation method promises; a new one is tested without an edit here."""

import dataclasses
import inspect
import textwrap

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from one_gaussian import unweighted

from dsd_jax import distillation, ode
from dsd_jax.distillation import DSD, METHODS, NOTHING, Given, Method, TrainedMethod
from dsd_jax.guidance import classifier_free
from dsd_jax.priors.gaussian import GaussianMixture
from dsd_jax.schedule import NoiseSchedule

SCHEDULE = NoiseSchedule.from_config(
    {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
)
KEY = jax.random.key(0)
SHAPES = [(4, 4, 3), (2, 4, 4, 3)]
every_method = pytest.mark.parametrize("kind", METHODS.values(), ids=METHODS)
TRAINED = {name: kind for name, kind in METHODS.items() if kind.trains}
every_trained_method = pytest.mark.parametrize("kind", TRAINED.values(), ids=TRAINED)


def prior(shape):
    means = jax.random.normal(jax.random.key(1), (3, *shape))
    return GaussianMixture(jnp.zeros(3), means, jnp.full(means.shape, 0.1))


def denoiser_at(mixture, *components, wrap=lambda network: network):
    network = wrap(mixture.network(SCHEDULE))
    return classifier_free(network, mixture.only(*components), mixture.log_weights)


def gradient(method, key, x, seed_noise, t, mixture=None, wrap=lambda network: network):
    """With all that a method may ask for: an adapter that has learned something, bad pictures."""
    mixture = prior(x.shape) if mixture is None else mixture
    given = Given(
        progress=0.5,
        learned=denoiser_at(mixture.adapt(0.3), 0, wrap=wrap)(1.0),
        negative=denoiser_at(mixture, 1, wrap=wrap)(1.0),
    )
    at = denoiser_at(mixture, 0, wrap=wrap)
    return method.gradient(key, at, SCHEDULE, x, seed_noise, t, given)


jitted = jax.jit(gradient, static_argnums=0)


def inputs(shape=SHAPES[0], seed=0):
    return jax.random.normal(jax.random.key(10 + seed), (2, *shape))


# ---- the dataclass -----------------------------------------------------------------------------


@every_method
def test_a_method_is_a_frozen_hashable_dataclass(kind):
    """Two of equal numbers are equal; what it has besides says what it needs of a run."""
    method = kind()
    assert isinstance(method, Method) and method == kind() and hash(method) == hash(kind())
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.guidance_scale = 3.0
    other = dataclasses.replace(method, guidance_scale=3.5, weighting="one-step")
    assert other != method and (other.guidance_scale, other.weighting) == (3.5, "one-step")
    assert kind.view_noise in ("shared", "own", "attached")
    assert kind.trains == issubclass(kind, TrainedMethod) == (kind.update is not Method.update)
    assert kind.trains == (kind.init is not Method.init)
    leading = inspect.signature(Method.gradient).parameters
    assert list(inspect.signature(kind.gradient).parameters) == list(leading)
    assert method.bad_prompt is None or method.bad_prompt.strip()
    assert method.ode_grid(SCHEDULE) == ode.linear_grid(11)


@every_method
def test_every_number_says_what_it_is(kind):
    """In a string below it, which becomes the help of its flag."""
    helptext = tyro.extras.get_parser(kind).format_help()
    for field in dataclasses.fields(kind):
        _, flag, after = helptext.partition(f"--{field.name.replace('_', '-')} ")
        assert flag and len(after.partition("(default")[0].split()) > 4, field.name


@every_method
def test_the_ode_is_guided_as_the_prediction(kind):
    def denoiser_at(w):
        return lambda x, t: x + w

    assert kind(guidance_scale=3.0).ode_denoiser(denoiser_at, SCHEDULE)(jnp.ones(()), 500) == 4.0


def test_the_method_of_the_docstring_works():
    """It asks nothing of an x that is already where the seed's ODE leads."""
    code = distillation.__doc__.partition("one file:\n")[2].partition("\nHand")[0]
    names = {"dataclass": dataclasses.dataclass, "ode": ode} | vars(distillation)
    exec(textwrap.dedent(code), names)
    method, (x, noise) = names["Target"](strength=0.5), inputs()
    denoiser = denoiser_at(prior(x.shape), 0)(method.guidance_scale)
    end = ode.integrate(denoiser, SCHEDULE, noise, ode.linear_grid(), 600).xhat_t
    np.testing.assert_allclose(gradient(method, KEY, end, noise, 600)[0], 0, atol=1e-5)
    beside = gradient(method, KEY, end + 1.0, noise, 600)[0]
    np.testing.assert_allclose(beside, 0.5 * SCHEDULE.variance(600) / SCHEDULE.s(600), rtol=1e-4)


def test_a_method_without_a_gradient_is_none():
    with pytest.raises(TypeError, match="abstract"):
        Method()  # pyright: ignore[reportAbstractUsage]
    with pytest.raises(NotImplementedError, match="DSD trains no network"):
        DSD().init(KEY, lambda key: None)


@pytest.mark.parametrize(
    ("name", "numbers", "message"),
    [
        ("sds", {"weighting": "s"}, "--method.weighting 's' is not one of variance, one-step"),
        ("nfsd", {"negative_from": 200}, "--method.negative-from must lie in 0..1, not 200"),
        ("ism", {"interval": -1}, "--method.interval must be at least 0, not -1"),
        ("ism", {"inversion_steps": 0}, "--method.inversion-steps must be at least 1, not 0"),
        ("vsd", {"lora_rank": 0}, "--method.lora-rank must be at least 1, not 0"),
        ("asd", {"lora_rate": 0.0}, "--method.lora-rate must be positive, not 0.0"),
        ("sds", {"tsr_k": 0}, "--method.tsr-k must be positive, not 0"),
        ("sds", {"tsr_sigma": float("inf")}, "--method.tsr-sigma must be positive, not inf"),
        ("asd", {"gamma": -1.5}, "--method.gamma must be at least -1, not -1.5"),
        ("sdi", {"inversion_eta": 2}, "--method.inversion-eta must lie in 0..1, not 2"),
        ("cfd", {"fresh_share": -0.1}, "--method.fresh-share must lie in 0..1, not -0.1"),
        ("dsd", {"eta": 2}, "--method.eta must lie in 0..1, not 2"),
        ("dsd", {"eta_at": float("nan")}, "--method.eta-at must lie in 0..1, not nan"),
        ("dsd", {"anchor": "x"}, "--method.anchor 'x' is not one of interpolated, trajectory"),
        ("dsd", {"ode_points": 1}, "--method.ode-points must be at least 2, not 1"),
        ("dsd", {"t_prime_floor": 320}, "--method.t-prime-floor must lie in 0..1, not 320"),
        ("dsd", {"t_prime_min": -1}, "--method.t-prime-min must be at least 0, not -1"),
    ],
)
def test_numbers_that_cannot_work_are_refused(name, numbers, message):
    with pytest.raises(ValueError) as error:
        METHODS[name](**numbers)
    assert str(error.value) == message


@every_method
def test_what_is_missing_is_named(kind):
    """Without anything given a method works, or says what it needs."""
    x, noise = inputs()
    needs = "learned" if kind.trains else {"nfsd": "negative"}.get(kind.__name__.lower())
    arguments = KEY, denoiser_at(prior(x.shape), 0), SCHEDULE, x, noise, 500, NOTHING
    if needs:
        with pytest.raises(ValueError, match=rf"{kind.__name__} needs given\.{needs}"):
            kind().gradient(*arguments)
    else:
        assert jax.eval_shape(lambda: kind().gradient(*arguments))[0].shape == x.shape


# ---- the gradient ------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_and_finite_values_at_every_timestep(kind, shape):
    x, noise = inputs(shape)
    for t in (0, 1, 320, 500, 998, 999):
        grad, logs = jitted(kind(), KEY, x, noise, t)
        assert grad.shape == shape and grad.dtype == jnp.float32
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0
        assert all(value.shape == () and np.isfinite(value) for value in logs.values())
        np.testing.assert_allclose(logs["gradient_norm"], np.linalg.norm(grad), rtol=1e-5)


@every_method
def test_jit_with_a_traced_timestep_changes_nothing(kind):
    x, noise = inputs()
    for t in (980, 320):
        plain = gradient(kind(), KEY, x, noise, t)[0]
        compiled = jitted(kind(), KEY, x, noise, t)[0]
        # SDI inverts in ten steps, each of which passes on what fusing rounds: 1.4e-4 in jax 0.12
        atol = 3e-4 if kind is METHODS["sdi"] else 1e-4
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=atol)


@every_method
def test_vmap_over_seeds_is_a_loop_over_seeds(kind):
    x, noise = jnp.stack([inputs(seed=seed) for seed in range(3)], axis=1)
    keys = jax.random.split(KEY, 3)
    seeds = jax.vmap(lambda *seed: jitted(kind(), *seed, 600)[0])
    batched = jax.jit(seeds)(keys, x, noise)
    for i in range(3):
        alone = jitted(kind(), keys[i], x[i], noise[i], 600)[0]
        np.testing.assert_allclose(batched[i], alone, rtol=1e-4, atol=1e-4)


@every_method
def test_randomness_is_the_key_or_the_seed_noise(kind):
    """The same inputs, the same gradient; what a method draws from or ignores is its own affair."""
    x, noise = inputs()
    first, again = (jitted(kind(), KEY, x, noise, 700)[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize(
    ("name", "by_key", "by_seed"),
    [("dsd", True, True), ("sds", True, False), ("csd", True, False), ("sdi", True, False),
     ("nfsd", True, False), ("vsd", True, False), ("asd", True, False), ("sim", True, False),
     ("fsd", False, True), ("cfd", False, True), ("ism", False, False)],
)  # fmt: skip
def test_what_the_gradient_depends_on(name, by_key, by_seed):
    x, noise = inputs()
    method, other = METHODS[name](), jax.random.key(1)
    first = jitted(method, KEY, x, noise, 700)[0]
    moved_by_key = np.abs(jitted(method, other, x, noise, 700)[0] - first).max() > 1e-3
    moved_by_seed = np.abs(jitted(method, KEY, x, noise[::-1], 700)[0] - first).max() > 1e-3
    assert (moved_by_key, moved_by_seed) == (by_key, by_seed)


@every_method
def test_nothing_flows_back_through_the_method(kind):
    x, noise = inputs()

    def total(mean, x, noise):
        mixture = prior(x.shape)._replace(mean=mean)
        return gradient(kind(), KEY, x, noise, 600, mixture)[0].sum()

    arguments = prior(x.shape).mean, x, noise
    for derivative in jax.jit(jax.jacfwd(total, argnums=(0, 1, 2)))(*arguments):
        assert not derivative.any()
    assert not jax.jit(jax.grad(total, argnums=1))(*arguments).any()


@every_method
def test_arithmetic_is_float32_around_a_half_precision_network(kind):
    x, noise = inputs()
    seen = []

    def half(network):
        def rounded(x_t, t, conditioning):
            seen.append(x_t.dtype)
            return network(x_t, t, conditioning).astype(jnp.bfloat16)

        return rounded

    grad, _ = gradient(kind(), KEY, x, noise, 600, wrap=half)
    assert grad.dtype == jnp.float32 and set(seen) == {jnp.dtype("float32")}
    low = grad.astype(jnp.bfloat16).astype(jnp.float32)
    assert (low != grad).any()  # the difference itself was not rounded to bfloat16


@every_method
def test_the_weight_scales_the_gradient(kind):
    x, noise = inputs()
    plain = gradient(unweighted(kind), KEY, x, noise, 600)[0]
    default = jitted(kind(), KEY, x, noise, 600)[0]
    np.testing.assert_allclose(default, SCHEDULE.variance(600) * plain, rtol=1e-4, atol=1e-4)
    other = gradient(kind(weighting="one-step"), KEY, x, noise, 600)[0]
    np.testing.assert_allclose(other, SCHEDULE.s(600) * plain, rtol=1e-4, atol=1e-4)


# ---- methods that train a network --------------------------------------------------------------


def train(method, key, state, x, t):
    """One update on x, of an adapter that shifts the mixture's means."""
    mixture = prior(x.shape)

    def learned_at(weights):
        return denoiser_at(mixture.adapt(weights), 0)(1.0)

    return method.update(key, state, learned_at, denoiser_at(mixture, 0), SCHEDULE, x, t)


trained = jax.jit(train, static_argnums=0)


@every_trained_method
@pytest.mark.parametrize("shape", SHAPES)
def test_training_starts_at_the_prior_and_keeps_its_shapes(kind, shape):
    method, adapter, (x, _) = kind(), prior(shape).init_adapter, inputs(shape)
    state = method.init(KEY, adapter)
    chex.assert_trees_all_equal(state.weights, adapter(KEY))
    after, logs = trained(method, KEY, state, x, 600)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, after)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((after, logs)))
    assert np.abs(after.weights - state.weights).max() > 0
    assert all(value.shape == () for value in logs.values())


@every_trained_method
def test_training_is_the_same_compiled_and_for_many_seeds(kind):
    """Every seed's network is trained by itself: vmap is a loop."""
    method, x = kind(), jnp.stack([inputs(seed=seed)[0] for seed in range(3)])
    keys, state = jax.random.split(KEY, 3), method.init(KEY, prior(SHAPES[0]).init_adapter)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    together = jax.vmap(lambda key, state, x: train(method, key, state, x, 600))
    batched, _ = jax.jit(together)(keys, states, x)
    for i in range(3):
        alone, _ = train(method, keys[i], state, x[i], 600)
        one = jax.tree.map(lambda leaf, i=i: leaf[i], batched)
        chex.assert_trees_all_close(one, alone, rtol=1e-3, atol=1e-5)
    assert np.abs(batched.weights[0] - batched.weights[1]).max() > 0
