"""Uses the library from Python: simulates an SDE, samples from a small network, and samples with a Python function
as the network.

    python3 sample_and_simulate.py build/lib/libdiffusion.so build/libdiffusion-api.json
"""
import array
import ctypes
import math
import sys

import diffusion

PATHS, IMAGES, SIDE, STEPS = 20000, 4, 8, 10


def simulate(dm):
    """dX = -2 X dt + dW from X(0) = 1 until t = 1: mean e^-2 and variance (1 - e^-4)/4."""
    sde = dm.create("dm_sde_create_ornstein_uhlenbeck", None, 1, 2.0, 0.0, 1.0, None)
    states = diffusion.zeros("d", 1, PATHS, 1)
    start = array.array("d", [1.0] * PATHS)
    x0, paths = dm.wrap(start, PATHS, 1), dm.wrap(states, 1, PATHS, 1)
    options = dm.options("dm_sde_solve_options", method=dm.DM_SDE_METHOD_EXACT, steps=10, num_paths=PATHS, seed=1)
    dm.dm_sde_solve(sde, x0, ctypes.byref(options), paths, None, None)
    mean = sum(states) / PATHS
    variance = sum((x - mean) ** 2 for x in states) / PATHS
    exact_mean, exact_variance = math.exp(-2), (1 - math.exp(-4)) / 4
    print(f"SDE: mean {mean:.4f} (exactly {exact_mean:.4f}), variance {variance:.4f} (exactly {exact_variance:.4f})")
    for tensor in (paths, x0):
        dm.dm_tensor_destroy(tensor)
    dm.dm_sde_destroy(sde)
    return (abs(mean - exact_mean) < 4.5 * math.sqrt(exact_variance / PATHS)
            and abs(variance / exact_variance - 1) < 4.5 * math.sqrt(2 / PATHS))


def run(dm, sampler, seeds):
    """One image for each seed, as bytes."""
    pixels, numbers = diffusion.zeros("f", len(seeds), 1, SIDE, SIDE), array.array("q", seeds)
    out, tensor = dm.wrap(pixels, len(seeds), 1, SIDE, SIDE), dm.wrap(numbers, len(seeds))
    dm.dm_sampler_run(sampler, tensor, None, None, out)
    dm.dm_tensor_destroy(tensor)
    dm.dm_tensor_destroy(out)
    return pixels


def sample(dm, scheduler):
    """An untrained network's images; each depends on its own seed alone."""
    widths = (ctypes.c_int32 * 2)(8, 16)
    net = dm.create("dm_unet_create", None, dm.options("dm_unet_options", num_levels=2, channels=widths, seed=3))
    options = dm.options("dm_sampler_options", num_inference_steps=STEPS)
    sampler = dm.create("dm_sampler_create_net", None, scheduler, net, options)
    together = run(dm, sampler, range(IMAGES))
    alone = run(dm, sampler, [IMAGES - 1])
    print(f"network: {IMAGES} images of {len(alone)} pixels, first {together[0]:.4f}")
    dm.dm_sampler_destroy(sampler)
    dm.dm_net_destroy(net)
    return together[-len(alone):] == alone and all(math.isfinite(x) for x in together)


def sample_with_python(dm, scheduler):
    """A host's network: all data is the image whose pixels are 0.25, so that is the noise-free image at any x_t."""
    calls = []

    def denoise(x, t, labels, out, user):
        calls.append(x)
        dm.dm_tensor_fill(out, 0.25)
        return 0

    callback = dm.types["dm_denoise_fn"](denoise)  # keep it as long as the sampler
    options = dm.options("dm_sampler_options", num_inference_steps=STEPS)
    sampler = dm.create("dm_sampler_create", None, scheduler, callback, None, options)
    pixels = run(dm, sampler, [7, 8])
    print(f"Python function: called {len(calls)} times, first pixel {pixels[0]:.4f}")
    dm.dm_sampler_destroy(sampler)
    return len(calls) == STEPS and all(abs(x - 0.25) < 1e-6 for x in pixels)


def refuse(dm):
    """A mistake is an exception with the library's message."""
    try:
        dm.create("dm_sde_create_brownian", None, 0, 0.0, 1.0, None)
    except diffusion.Error as error:
        print(f"refused: {error}")
        return error.status == dm.DM_ERROR_INVALID_ARGUMENT and "dim" in str(error)
    return False


def main():
    dm = diffusion.Library(sys.argv[1], sys.argv[2])
    print(dm.dm_version_string().decode())
    epsilon = dm.create("dm_scheduler_create", None, dm.options("dm_scheduler_options", sampler=dm.DM_SAMPLER_DDIM))
    x0 = dm.create("dm_scheduler_create", None, dm.options("dm_scheduler_options", sampler=dm.DM_SAMPLER_DDIM,
                                                           prediction_type=dm.DM_PREDICTION_X0))
    good = [simulate(dm), sample(dm, epsilon), sample_with_python(dm, x0), refuse(dm)]
    dm.dm_scheduler_destroy(x0)
    dm.dm_scheduler_destroy(epsilon)
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
