"""NoiseSchedule and ddim_step against diffusers' DDIMScheduler."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import ode
from dsd_jax.schedule import CLEAN, NoiseSchedule

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

KINDS = ["linear", "scaled_linear", "squaredcos_cap_v2"]


def pair(kind="scaled_linear", prediction_type="epsilon"):
    config = {
        "beta_schedule": kind,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": prediction_type,
    }
    theirs = diffusers.DDIMScheduler(**config, clip_sample=False, set_alpha_to_one=True)
    return NoiseSchedule.from_config(theirs.config), theirs


@pytest.mark.parametrize("kind", KINDS)
def test_alphas_cumprod(kind):
    ours, theirs = pair(kind)
    np.testing.assert_allclose(
        ours.alphas_cumprod, theirs.alphas_cumprod.numpy(), rtol=2e-5, atol=1e-8
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [999, 480, 0])
def test_ddim_step(prediction_type, t):
    ours, theirs = pair(prediction_type=prediction_type)
    theirs.set_timesteps(50)  # strides of 20
    x_t, prediction = np.random.default_rng(t).normal(size=(2, 4, 4, 3)).astype(np.float32)
    expected = theirs.step(torch.tensor(prediction), t, torch.tensor(x_t)).prev_sample.numpy()
    eps = ours.to_eps(jnp.asarray(prediction), jnp.asarray(x_t), t)
    step = ode.ddim_step(ours, jnp.asarray(x_t), eps, t, max(t - 20, CLEAN))
    np.testing.assert_allclose(step, expected, rtol=1e-4, atol=1e-4)


def test_add_noise():
    ours, theirs = pair()
    x, eps = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 3)).astype(np.float32)
    t = np.array([0, 500, 999])
    expected = theirs.add_noise(torch.tensor(x), torch.tensor(eps), torch.tensor(t)).numpy()
    np.testing.assert_allclose(ours.add_noise(x, eps, t), expected, atol=1e-5)
