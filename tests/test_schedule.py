"""NoiseSchedule against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.schedule import CLEAN, PREDICTION_TYPES, NoiseSchedule

STABLE_DIFFUSION = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
T_VALUES = np.array([0, 1, 500, 998, 999])


def brute_force_abar(kind: str, start: float, end: float, steps: int = 1000) -> np.ndarray:
    """abar by the definition, one step at a time."""

    def beta(i):
        share = i / (steps - 1)
        if kind == "linear":
            return start + share * (end - start)
        if kind == "scaled_linear":
            return (np.sqrt(start) + share * (np.sqrt(end) - np.sqrt(start))) ** 2
        bar = [np.cos((j / steps + 0.008) / 1.008 * np.pi / 2) ** 2 for j in (i, i + 1)]
        return min(1 - bar[1] / bar[0], 0.999)

    abar, product = [], 1.0
    for i in range(steps):
        product *= 1 - beta(i)
        abar.append(product)
    return np.array(abar)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_alphas_cumprod_follow_the_definition(kind):
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION | {"beta_schedule": kind})
    expected = brute_force_abar(kind, 0.00085, 0.012)
    assert schedule.num_train_timesteps == 1000
    assert schedule.last == 999
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=1e-6)


def test_absent_keys_mean_diffusers_defaults():
    schedule = NoiseSchedule.from_config({})
    assert schedule.prediction_type == "epsilon"
    expected = brute_force_abar("linear", 1e-4, 0.02)
    np.testing.assert_allclose(schedule.alphas_cumprod, expected, rtol=1e-6)


def test_trained_betas_are_taken_as_they_are():
    schedule = NoiseSchedule.from_config({"trained_betas": [0.5, 0.2]})
    np.testing.assert_allclose(schedule.alphas_cumprod, [0.5, 0.4], rtol=1e-6)


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"prediction_type": "score"}, "score"),
        ({"beta_schedule": "sigmoid"}, "sigmoid"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name 'FlowMatchEuler"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler"),
        ({"_class_name": None}, "_class_name None"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"timestep_type": "continuous"}, "timestep_type"),
        ({"beta_start": float("nan")}, "beta_start .* between 0 and 1, got nan"),
        ({"beta_end": "0.02"}, "beta_end .* got '0.02'"),
        ({"beta_end": 1.0}, "beta_end"),
        ({"beta_start": 0.03}, "beta_start 0.03 .* above beta_end"),
        ({"beta_end": 0.9}, "abar run from"),
        ({"beta_start": 1e-9, "beta_end": 1e-9}, "abar run from"),
        ({"num_train_timesteps": 0}, "num_train_timesteps .* got 0"),
        ({"num_train_timesteps": 200_000_000}, "num_train_timesteps"),
        ({"num_train_timesteps": True}, "num_train_timesteps .* got True"),
        ({"trained_betas": {}}, "trained_betas"),
        ({"trained_betas": [0.1, None]}, "trained_betas .* got None"),
        ({"steps_offset": -5}, "steps_offset .* got -5"),
        ({"steps_offset": 10**9}, "steps_offset .* got 1000000000"),
        ({"steps_offset": None}, "steps_offset .* got None"),
        ({"timestep_spacing": "odd"}, "timestep_spacing 'odd' .* not one of leading"),
        ({"prediction_type": []}, r"prediction_type \[\]"),
    ],
)
def test_unsupported_configs_are_named(config, word):
    with pytest.raises(ValueError, match=word):
        NoiseSchedule.from_config(config)


@pytest.mark.parametrize("name", ["DDIMScheduler", "FlaxPNDMScheduler", "EulerDiscreteScheduler"])
def test_schedulers_of_one_process_have_one_schedule(name):
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION | {"_class_name": name})
    plain = NoiseSchedule.from_config(STABLE_DIFFUSION)
    np.testing.assert_array_equal(schedule.alphas_cumprod, plain.alphas_cumprod)


def test_coefficients():
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION)
    abar = brute_force_abar("scaled_linear", 0.00085, 0.012)[T_VALUES]
    # 1 - abar cancels in float32 where abar is nearly 1
    np.testing.assert_allclose(schedule.alpha(T_VALUES), np.sqrt(abar), rtol=1e-6)
    np.testing.assert_allclose(schedule.variance(T_VALUES), 1 - abar, rtol=1e-4)
    np.testing.assert_allclose(schedule.sigma(T_VALUES), np.sqrt(1 - abar), rtol=5e-5)
    np.testing.assert_allclose(schedule.s(T_VALUES), np.sqrt((1 - abar) / abar), rtol=5e-5)
    assert (schedule.alpha(CLEAN), schedule.sigma(CLEAN), schedule.s(CLEAN)) == (1, 0, 0)


def test_add_noise_broadcasts_from_the_left():
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION)
    x0, eps = np.random.default_rng(0).normal(size=(2, 5, 5, 4, 3))  # n = h: easy to mix up
    abar = brute_force_abar("scaled_linear", 0.00085, 0.012)[T_VALUES].reshape(5, 1, 1, 1)
    expected = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * eps
    x0, eps = jnp.asarray(x0, jnp.float32), jnp.asarray(eps, jnp.float32)
    batched = jax.jit(schedule.add_noise)(x0, eps, T_VALUES)
    np.testing.assert_allclose(batched, expected, atol=2e-6)
    np.testing.assert_allclose(schedule.add_noise(x0[2], eps[2], 500), expected[2], atol=2e-6)
    np.testing.assert_array_equal(schedule.add_noise(x0, eps, CLEAN), x0)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_to_eps_recovers_the_noise(prediction_type):
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION | {"prediction_type": prediction_type})
    t = jnp.array([20, 500, 999])
    x0, eps = jax.random.normal(jax.random.key(0), (2, 3, 4, 4, 2))
    alpha, sigma = (c(t)[:, None, None, None] for c in (schedule.alpha, schedule.sigma))
    target = {"epsilon": eps, "v_prediction": alpha * eps - sigma * x0, "sample": x0}
    recovered = schedule.to_eps(target[prediction_type], schedule.add_noise(x0, eps, t), t)
    np.testing.assert_allclose(recovered, eps, atol=1e-5)


def test_the_prediction_type_is_static_under_jit():
    schedule = NoiseSchedule.from_config(STABLE_DIFFUSION | {"prediction_type": "sample"})
    ones = jnp.ones((2, 2))
    inside = jax.jit(lambda s: s.to_eps(ones, ones, 500))(schedule)
    np.testing.assert_allclose(inside, schedule.to_eps(ones, ones, 500), rtol=1e-6)
