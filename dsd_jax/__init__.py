"""dsd_jax: diverse score distillation in pure JAX.

A seed is a noise, a noise is an ODE, an ODE is a 3D object; everything else is a pure
function of those, vmapped over seeds.
"""

__version__ = "0.1.0"
