"""unet_defaults.*: a small UNet2DModel of diffusers 0.42.1 (torch 2.11.0) with that project's default settings, in float64.

Its time features are computed in float64, too; parameters are those of the recipe in README.md, seed 31."""

import json
import math
import pathlib

import numpy as np
import torch
from diffusers import UNet2DModel
from diffusers.models import embeddings

here = pathlib.Path(__file__).parent
MASK = (1 << 64) - 1


def uniform(seed, k, n):
    j = np.arange(1, n + 1, dtype=np.uint64)
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (np.uint64(k << 40) + j) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0


def parameter(seed, k, name, shape):
    u = uniform(seed, k, math.prod(shape))
    if len(shape) > 1:
        u = math.sqrt(3 / math.prod(shape[1:])) * u
    else:
        u = 1 + 0.2 * u if "norm" in name and name.endswith("weight") else 0.1 * u
    return torch.from_numpy(u.astype(np.float32).astype(np.float64)).reshape(shape)


def features(timesteps, dim, flip_sin_to_cos=False, downscale_freq_shift=1, scale=1, max_period=10000):
    half = dim // 2
    omega = torch.exp(-math.log(max_period) / (half - downscale_freq_shift) * torch.arange(half, dtype=torch.float64))
    phase = scale * timesteps.double()[:, None] * omega[None]
    parts = [torch.cos(phase), torch.sin(phase)] if flip_sin_to_cos else [torch.sin(phase), torch.cos(phase)]
    return torch.cat(parts, dim=1)


embeddings.get_timestep_embedding = features
model = UNet2DModel(
    sample_size=16,
    block_out_channels=(32, 64, 64),
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    layers_per_block=1,
    norm_num_groups=16,
).double()
shapes = {name: list(tensor.shape) for name, tensor in sorted(model.state_dict().items())}
model.load_state_dict({name: parameter(31, k, name, shape) for k, (name, shape) in enumerate(shapes.items())})
x = np.random.default_rng(31).standard_normal((2, 3, 16, 16)).astype(np.float32)
t = np.array([0.0, 17.0, 999.0])
with torch.no_grad():
    out = [model(torch.from_numpy(x).double(), torch.tensor(time)).sample.numpy() for time in t]
model.save_config(here)
config = json.loads((here / "config.json").read_text())
(here / "config.json").unlink()
(here / "unet_defaults.config.json").write_text(json.dumps(config, indent=1) + "\n")
(here / "unet_defaults.tensors.json").write_text(json.dumps(shapes) + "\n")
np.savez(here / "unet_defaults.npz", x=x, t=t, out_f64=np.stack(out))
