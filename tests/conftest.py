"""Two CPU devices, as on the smallest machine that memrl is used on, and no pictures on screen."""

import jax

jax.config.update("jax_num_cpu_devices", 2)
