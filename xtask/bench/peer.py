"""The PyTorch side of `cargo xtask bench`: reads one JSON request a line, does it, answers with one JSON line.

Requests: {"prepare": CASE}, {"measure": ITERATIONS}, "memory". The networks are those of sde-nets, written once more in torch.nn, with the
fastest ordinary PyTorch behind every part: fused attention, fused Adam, foreach averages.
"""

import json
import math
import os
import sys
import time

try:
    import torch
    import torch.nn.functional as F
    from torch import nn
except Exception as error:  # whatever keeps torch from being used
    print(json.dumps({"error": str(error) or type(error).__name__}), flush=True)
    sys.exit(0)


def peak_memory(device):
    """Bytes: the process's largest resident size, or what the accelerator has handed out at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, StopIteration):
        return None


class TimeFeatures(nn.Module):
    def __init__(self, config, dim):
        super().__init__()
        half = dim // 2
        if config["kind"] == "sinusoidal":
            step = -math.log(config["max_period"]) / (half - config["freq_shift"])
            frequencies = torch.exp(step * torch.arange(half))
        else:
            frequencies = 2 * math.pi * config["std"] * torch.randn(half)
        self.register_buffer("frequencies", frequencies)
        self.config = config

    def forward(self, t):
        t = t.log() if self.config.get("log") else t
        phases = (self.config["time_scale"] * t + self.config["time_shift"])[:, None] * self.frequencies
        parts = [phases.sin(), phases.cos()]
        return torch.cat(parts[::-1] if self.config.get("flip_sin_to_cos") else parts, 1)


def time_embedding(config, dim, width):
    return nn.Sequential(TimeFeatures(config, dim), nn.Linear(dim, width), nn.SiLU(), nn.Linear(width, width))


class Mlp(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        (dim,), hidden = shape, config["hidden"]
        self.time = time_embedding(config["time"], config["time_dim"], hidden[0])
        state = config.get("state")
        inputs = dim
        if state:
            self.register_buffer("frequencies", state["std"] * torch.randn(dim, state["count"]))
            inputs += 2 * state["count"]
        widths = [inputs, *hidden, dim]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x, t):
        if hasattr(self, "frequencies"):
            phases = 2 * math.pi * x @ self.frequencies
            x = torch.cat([x, phases.sin(), phases.cos()], 1)
        h = self.layers[0](x) + self.time(t)
        for layer in self.layers[1:]:
            h = layer(F.silu(h))
        return h


def group_norm(config, channels):
    groups = config.get("groups") or max(1, min(32, channels // 4))
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResidualBlock(nn.Module):
    def __init__(self, config, inputs, outputs):
        super().__init__()
        self.norm1, self.norm2 = group_norm(config, inputs), group_norm(config, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.embedding = nn.Linear(4 * config["channels"], outputs)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.dropout = config["dropout"]

    def forward(self, x, embedding):
        h = self.conv1(F.silu(self.norm1(x))) + self.embedding(embedding)[:, :, None, None]
        h = F.dropout(F.silu(self.norm2(h)), self.dropout, self.training)
        return self.shortcut(x) + self.conv2(h)


def attention(query, key, value, heads):
    batch, channels, positions = query.shape
    split = lambda x: x.reshape(batch, heads, channels // heads, positions).transpose(2, 3)
    attended = F.scaled_dot_product_attention(split(query), split(key), split(value))
    return attended.transpose(2, 3).reshape(batch, channels, positions)


class AttentionBlock(nn.Module):
    def __init__(self, config, channels):
        super().__init__()
        self.norm, self.heads = group_norm(config, channels), config["heads"]
        self.query, self.key, self.value, self.output = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        n = self.norm(x)
        attended = attention(*(m(n).flatten(2) for m in (self.query, self.key, self.value)), self.heads)
        return x + self.output(attended.reshape(x.shape))


class Stage(nn.Module):
    """A residual block, and attention behind it where there is any."""

    def __init__(self, config, inputs, outputs, with_attention):
        super().__init__()
        self.block = ResidualBlock(config, inputs, outputs)
        self.attention = AttentionBlock(config, outputs) if with_attention else nn.Identity()

    def forward(self, x, embedding):
        return self.attention(self.block(x, embedding))


class Down(nn.Module):
    def __init__(self, config, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if config["resampling"] == "conv" else None

    def forward(self, x):
        return F.avg_pool2d(x, 2) if self.conv is None else self.conv(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Module):
    def __init__(self, config, channels):
        super().__init__()
        conv = config["resampling"] == "conv"
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if conv else nn.Identity()

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Unet(nn.Module):
    def __init__(self, config, shape):
        super().__init__()
        image, height, _ = shape
        channels, multipliers, blocks = config["channels"], config["multipliers"], config["blocks"]
        self.time = time_embedding(config["time"], channels, 4 * channels)
        if config.get("classes"):
            self.classes = nn.Embedding(config["classes"] + 1, 4 * channels)
        self.input = nn.Conv2d(image, channels, 3, padding=1)
        self.down, self.up, skips, now = nn.ModuleList(), nn.ModuleList(), [channels], channels
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.down.append(Stage(config, now, channels * multiplier, height in config["attention"]))
                now = channels * multiplier
                skips.append(now)
            if level + 1 < len(multipliers):
                self.down.append(Down(config, now))
                height //= 2
                skips.append(now)
        self.middle = nn.ModuleList([Stage(config, now, now, True), Stage(config, now, now, False)])
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for block in range(blocks + 1):
                here = config["up_attention"] == "every_block" or block == blocks
                with_attention = here and height in config["attention"]
                self.up.append(Stage(config, now + skips.pop(), channels * multiplier, with_attention))
                now = channels * multiplier
            if level > 0:
                self.up.append(Up(config, now))
                height *= 2
        self.norm, self.output = group_norm(config, now), nn.Conv2d(now, image, 3, padding=1)

    def forward(self, x, t):
        embedding = self.time(t)
        if hasattr(self, "classes"):
            embedding = embedding + self.classes.weight[-1]
        embedding = F.silu(embedding)
        h = self.input(x)
        skips = [h]
        for part in self.down:
            h = part(h, embedding) if isinstance(part, Stage) else part(h)
            skips.append(h)
        for stage in self.middle:
            h = stage(h, embedding)
        for part in self.up:
            h = part(torch.cat([h, skips.pop()], 1), embedding) if isinstance(part, Stage) else part(h)
        return self.output(F.silu(self.norm(h)))


class Conv(nn.Sequential):
    def __init__(self, inputs, outputs, kernel, stride=1, padding=0):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.ReLU(inplace=True))


class Mixed(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def mean_pool():
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


def inception_a(n, pool):
    return Mixed(
        Conv(n, 64, 1),
        nn.Sequential(Conv(n, 48, 1), Conv(48, 64, 5, 1, 2)),
        nn.Sequential(Conv(n, 64, 1), Conv(64, 96, 3, 1, 1), Conv(96, 96, 3, 1, 1)),
        nn.Sequential(mean_pool(), Conv(n, pool, 1)),
    )


def inception_c(n):
    across, down = lambda a, b: Conv(a, b, (1, 7), 1, (0, 3)), lambda a, b: Conv(a, b, (7, 1), 1, (3, 0))
    return Mixed(
        Conv(768, 192, 1),
        nn.Sequential(Conv(768, n, 1), across(n, n), down(n, 192)),
        nn.Sequential(Conv(768, n, 1), down(n, n), across(n, n), down(n, n), across(n, 192)),
        nn.Sequential(mean_pool(), Conv(768, 192, 1)),
    )


def inception_e(n, pool):
    pair = lambda: Mixed(Conv(384, 384, (1, 3), 1, (0, 1)), Conv(384, 384, (3, 1), 1, (1, 0)))
    return Mixed(
        Conv(n, 320, 1),
        nn.Sequential(Conv(n, 384, 1), pair()),
        nn.Sequential(Conv(n, 448, 1), Conv(448, 384, 3, 1, 1), pair()),
        nn.Sequential(pool, Conv(n, 192, 1)),
    )


def inception():
    """The FID's Inception network, as pytorch-fid runs it."""
    seven = [Conv(768, 192, 1), Conv(192, 192, (1, 7), 1, (0, 3)), Conv(192, 192, (7, 1), 1, (3, 0)), Conv(192, 192, 3, 2)]
    return nn.Sequential(
        Conv(3, 32, 3, 2), Conv(32, 32, 3), Conv(32, 64, 3, 1, 1), nn.MaxPool2d(3, 2),
        Conv(64, 80, 1), Conv(80, 192, 3), nn.MaxPool2d(3, 2),
        inception_a(192, 32), inception_a(256, 64), inception_a(288, 64),
        Mixed(
            Conv(288, 384, 3, 2),
            nn.Sequential(Conv(288, 64, 1), Conv(64, 96, 3, 1, 1), Conv(96, 96, 3, 2)),
            nn.MaxPool2d(3, 2),
        ),
        inception_c(128), inception_c(160), inception_c(160), inception_c(192),
        Mixed(nn.Sequential(Conv(768, 192, 1), Conv(192, 320, 3, 2)), nn.Sequential(*seven), nn.MaxPool2d(3, 2)),
        inception_e(1280, mean_pool()), inception_e(2048, nn.MaxPool2d(3, 1, 1)),
        nn.AdaptiveAvgPool2d(1),
    )


NETWORKS = {"unet": Unet, "mlp": Mlp}

# Parts of networks that are not written here; a configuration may say that it does without them.
UNKNOWN = ["pyramid", "rescale", "scale_shift", "one_hot", "augment", "centre", "precondition", "time_dim"]


def build(config, shape):
    kind, resampling = config["kind"], config.get("resampling")
    if kind not in NETWORKS or resampling not in (None, "conv", "pool"):
        raise NotImplementedError(f"this network is not written here ({kind}, resampling {resampling})")
    for key in UNKNOWN if kind == "unet" else []:
        if config.get(key):
            raise NotImplementedError(f"this network is not written here ({key} = {config[key]})")
    return NETWORKS[kind](config, shape)


class Bench:
    """Makes of a case what is timed: a function that does it once."""

    def __init__(self, device, threads, autocast, channels_last):
        self.device, self.autocast, self.channels_last = torch.device(device), autocast, channels_last
        self.parameters = None
        torch.set_num_threads(threads)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True

    def cast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast)

    def randn(self, *shape):
        x = torch.randn(*shape, device=self.device)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last and x.dim() == 4 else x

    def network(self, case):
        net = build(case["net"], case["shape"]).to(self.device)
        self.parameters = sum(p.numel() for p in net.parameters())
        return net.to(memory_format=torch.channels_last) if self.channels_last and len(case["shape"]) == 3 else net

    def forward(self, case):
        net = self.network(case).eval()
        x, t = self.randn(case["batch"], *case["shape"]), torch.rand(case["batch"], device=self.device)

        def run():
            with torch.no_grad(), self.cast():
                net(x, t)

        return run

    def features(self, case):
        net = inception().to(self.device).eval()
        self.parameters = sum(p.numel() for p in net.parameters())
        if self.channels_last:
            net = net.to(memory_format=torch.channels_last)
        levels = torch.randint(0, 256, (case["batch"], 3, case["size"], case["size"]), dtype=torch.uint8)

        def run():
            with torch.no_grad(), self.cast():
                x = levels.to(self.device).float() / 255
                x = 2 * F.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
                if self.channels_last:
                    x = x.contiguous(memory_format=torch.channels_last)
                net(x).flatten(1).cpu()

        return run

    def step(self, case):
        net, optimiser = self.network(case).train(), case["optimiser"]
        parameters = list(net.parameters())
        adam = torch.optim.Adam(
            parameters, optimiser["lr"], (optimiser["beta1"], optimiser["beta2"]), optimiser["eps"], fused=True
        )
        averages = [p.detach().clone() for p in parameters]
        data = self.randn(case["batch"], *case["shape"])
        by_sample = [-1] + [1] * len(case["shape"])

        def run():
            t = torch.rand(case["batch"], device=self.device) * (1 - 1e-5) + 1e-5
            alpha = torch.exp(-0.25 * t * t * 19.9 - 0.05 * t).reshape(by_sample)
            eps = torch.randn_like(data)
            with self.cast():
                predicted = net(alpha * data + (1 - alpha * alpha).sqrt() * eps, t)
            loss = F.mse_loss(predicted.float(), eps)
            adam.zero_grad(set_to_none=True)
            loss.backward()
            if case["clip"]:
                torch.nn.utils.clip_grad_norm_(parameters, case["clip"])
            adam.step()
            torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - case["ema"])
            return loss.item()

        return run

    def sampling(self, case):
        net = self.network(case).eval()

        def run():
            x = self.randn(case["batch"], *case["shape"])
            with torch.no_grad(), self.cast():
                for i in range(case["nfe"]):
                    t = torch.full((case["batch"],), 1 - i / case["nfe"], device=self.device)
                    x = 0.99 * x - 0.1 * net(x, t)
            x.cpu()

        return run

    def gradient(self, y, inputs):
        # A gradient of ones is made anew each time, as Candle's tape does.
        return lambda: torch.autograd.grad(y, inputs, torch.ones_like(y), retain_graph=True)

    def with_passes(self, inputs, f, which):
        if which == "forward":
            inputs = [x.detach() for x in inputs]
            return lambda: f(*inputs)
        inputs = [x.requires_grad_() for x in inputs]
        return self.gradient(f(*inputs), inputs)

    def conv(self, case, batch, which):
        x = self.randn(batch, case["inputs"], case["size"], case["size"])
        weight = self.randn(case["outputs"], case["inputs"], case["kernel"], case["kernel"])
        bias = self.randn(case["outputs"])
        if case["stride"] == 2:
            f = lambda: F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, bias, stride=2)
        else:
            f = lambda: F.conv2d(x, weight, bias, padding=case["kernel"] // 2)
        if which == "forward":
            return f
        wanted = [x] if which == "input_gradient" else [weight, bias]
        for tensor in wanted:
            tensor.requires_grad_()
        return self.gradient(f(), wanted)

    def update(self, case):
        sizes = case["sizes"]
        parameters = [self.randn(n).requires_grad_() for n in sizes]
        if case["what"] == "ema":
            averages = [p.detach().clone() for p in parameters]
            return lambda: torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1e-4)
        for p in parameters:
            p.grad = torch.randn_like(p)
        return torch.optim.Adam(parameters, 2e-4, fused=True).step

    def op(self, case):
        op, batch, which = case["op"], case["batch"], case["pass"]
        image = lambda channels: self.randn(batch, channels, op["size"], op["size"])
        kind = op["kind"]
        if kind == "conv":
            return self.conv(op, batch, which)
        if kind == "update":
            return self.update(op)
        if kind == "rotation":
            n = op["size"]
            rows, columns = torch.triu_indices(n, n, 1, device=self.device)
            zero = torch.zeros(n, n, dtype=torch.float64, device=self.device)

            def rotation(upper):
                u = zero.index_put((rows, columns), upper)
                return torch.linalg.matrix_exp(u - u.T)

            return self.with_passes([self.randn(n * (n - 1) // 2).double() / n**0.5], rotation, which)
        if kind == "group_norm":
            channels = op["channels"]
            f = lambda x, w, b: F.group_norm(x, op["groups"], w, b, 1e-6)
            g = (lambda x, w, b: F.silu(f(x, w, b))) if op["silu"] else f
            return self.with_passes([image(channels), self.randn(channels), self.randn(channels)], g, which)
        if kind == "attention":
            positions = op["size"] ** 2
            qkv = [self.randn(batch, op["channels"], positions) for _ in range(3)]
            return self.with_passes(qkv, lambda q, k, v: attention(q, k, v, op["heads"]), which)
        if kind == "softmax":
            scores = self.randn(batch, op["positions"], op["positions"])
            return self.with_passes([scores], lambda x: torch.softmax(x, -1), which)
        if kind == "linear":
            tensors = [self.randn(batch, op["inputs"]), self.randn(op["outputs"], op["inputs"]), self.randn(op["outputs"])]
            return self.with_passes(tensors, F.linear, which)
        if kind == "concat":
            pair = [image(op["left"]), image(op["right"])]
            return self.with_passes(pair, lambda a, b: torch.cat([a, b], 1), which)
        if kind == "add":
            return self.with_passes([image(op["channels"]), image(op["channels"])], torch.add, which)
        f = {
            "silu": F.silu,
            "upsample": lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
            "dropout": lambda x: F.dropout(x, 0.1, True),
        }[kind]
        return self.with_passes([image(op["channels"])], f, which)

    def prepare(self, case):
        self.parameters = None
        make = {
            "op": self.op,
            "forward": self.forward,
            "features": self.features,
            "step": self.step,
            "sampling": self.sampling,
        }
        if case["kind"] not in make:
            raise NotImplementedError(f"no {case['kind']} on this side")
        return make[case["kind"]](case)

    def synchronise(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def main():
    settings = json.loads(sys.argv[1])
    bench = Bench(settings["device"], settings["threads"], settings["autocast"], settings["channels_last"])
    run = None
    say = lambda answer: print(json.dumps(answer), flush=True)
    say({"torch": torch.__version__, "python": sys.version.split()[0], "memory": peak_memory(bench.device)})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request == "memory":
                say({"memory": peak_memory(bench.device)})
            elif "prepare" in request:
                run = None  # what came before gives its memory back first
                run = bench.prepare(request["prepare"])
                say({"parameters": bench.parameters})
            else:
                bench.synchronise()
                wall, cpu = time.perf_counter(), time.process_time()
                for _ in range(request["measure"]):
                    run()
                bench.synchronise()
                say({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu})
        except Exception as error:
            say({"error": (str(error) or type(error).__name__).splitlines()[0]})


main()
