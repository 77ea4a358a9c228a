# Outputs and input gradients of small DDPM++, NCSN++ and EDM networks, in float64, from torch's own operators.
#
# A second implementation, written for this test from the papers: Song et al. 2021 (arXiv 2011.13456, appendix H) and
# Karras et al. 2022 (arXiv 2206.00364, appendix F). Where the two describe the same thing differently, each is computed its own way here:
# filters as "insert zeros, pad, convolve, stride" for Song's, as transposed and strided convolutions for Karras's, whose
# attention has one map for query, key and value with interleaved channels.
#
#   python unet_variants.py        writes unet_variants.npz beside itself
import json, math, pathlib
import numpy as np, torch
import torch.nn.functional as F

torch.set_default_dtype(torch.float64)
M64 = (1 << 64) - 1

def uniform(seed, k, j):
    z = (seed + ((k << 40) + j) * 0x9E3779B97F4A7C15) & M64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M64
    z ^= z >> 31
    return (z >> 11) * 2.0**-52 - 1.0

def make(shapes, seed):
    """Weights by the recipe of README.md, in the order of the names."""
    out = {}
    for k, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        u = np.array([uniform(seed, k, j + 1) for j in range(int(np.prod(shape)))]).reshape(shape)
        if name.endswith("frequencies"): w = 0.5 * u
        elif len(shape) == 1: w = 1 + 0.2 * u if "norm" in name and name.endswith("weight") else 0.1 * u
        else: w = math.sqrt(3 / np.prod(shape[1:])) * u
        out[name] = torch.tensor(w.astype(np.float32).astype(np.float64))
    return out

class Shapes(dict):
    """Collects shapes by name while a network is described."""
    def conv(self, name, i, o, k): self[name + ".weight"] = (o, i, k, k); self[name + ".bias"] = (o,)
    def linear(self, name, i, o, bias=True):
        self[name + ".weight"] = (o, i)
        if bias: self[name + ".bias"] = (o,)
    def norm(self, name, c): self[name + ".weight"] = (c,); self[name + ".bias"] = (c,)
    def block(self, name, i, o, e, change=False):
        self.norm(name + ".norm1", i); self.conv(name + ".conv1", i, o, 3); self.linear(name + ".embedding", e, o)
        self.norm(name + ".norm2", o); self.conv(name + ".conv2", o, o, 3)
        if i != o or change: self.conv(name + ".shortcut", i, o, 1)
    def attention(self, name, c):
        self.norm(name + ".norm", c)
        for m in ("query", "key", "value", "output"): self.conv(f"{name}.{m}", c, c, 1)

def gn(w, name, x):
    c = x.shape[1]
    return F.group_norm(x, min(c // 4, 32), w[name + ".weight"], w[name + ".bias"], eps=1e-6)

def conv(w, name, x, **kw):
    k = w[name + ".weight"]
    kw.setdefault("padding", k.shape[-1] // 2)
    return F.conv2d(x, k, w[name + ".bias"], **kw)

def lin(w, name, x): return x @ w[name + ".weight"].T + w[name + ".bias"]

def upfirdn(x, k, up, down, pad):
    """Zeros behind each pixel, zeros around, correlation with k ⊗ k (symmetric), every down-th."""
    b, c, h, wd = x.shape
    if up > 1:
        z = x.new_zeros(b, c, h, up, wd, up); z[:, :, :, 0, :, 0] = x
        x = z.reshape(b, c, h * up, wd * up)
    x = F.pad(x, (pad[0], pad[1], pad[0], pad[1]))
    f = torch.outer(k, k)[None, None].expand(c, 1, -1, -1)
    return F.conv2d(x, f, groups=c)[:, :, ::down, ::down]

K = torch.tensor([1.0, 3.0, 3.0, 1.0])

class Song:
    def up(fir, x):
        if not fir: return x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        return upfirdn(x, K / 8 * 2, 2, 1, (2, 1))
    def down(fir, x):
        b, c, h, wd = x.shape
        if not fir: return x.reshape(b, c, h // 2, 2, wd // 2, 2).mean((3, 5))
        return upfirdn(x, K / 8, 1, 2, (1, 1))
    def pyramid(w, name, x):
        return conv(w, name, upfirdn(x, K / 8, 1, 1, (2, 2)), stride=2, padding=0)
    def attention(w, name, x, rescale):
        h = gn(w, name + ".norm", x); c = x.shape[1]
        q, k, v = (torch.einsum("bchw,cd->bdhw", h, w[f"{name}.{m}.weight"][:, :, 0, 0].T)
                   + w[f"{name}.{m}.bias"][:, None, None] for m in ("query", "key", "value"))
        s = torch.einsum("bchw,bcij->bhwij", q, k) * c ** -0.5
        s = F.softmax(s.flatten(3), -1).reshape(s.shape)
        return (x + conv(w, name + ".output", torch.einsum("bhwij,bcij->bchw", s, v))) / math.sqrt(2)

class Karras:
    def up(fir, x):
        c = x.shape[1]; f = (torch.outer(K, K) / 64 if fir else torch.ones(2, 2) / 4)[None, None].expand(c, 1, -1, -1)
        return F.conv_transpose2d(x, f * 4, groups=c, stride=2, padding=(f.shape[-1] - 1) // 2)
    def down(fir, x):
        c = x.shape[1]; f = (torch.outer(K, K) / 64 if fir else torch.ones(2, 2) / 4)[None, None].expand(c, 1, -1, -1)
        return F.conv2d(x, f, groups=c, stride=2, padding=(f.shape[-1] - 1) // 2)
    def pyramid(w, name, x):
        y = F.conv2d(x, w[name + ".weight"], padding=2); c = y.shape[1]
        y = F.conv2d(y, (torch.outer(K, K) / 64)[None, None].expand(c, 1, -1, -1), groups=c, stride=2)
        return y + w[name + ".bias"][:, None, None]
    def attention(w, name, x, rescale):
        b, c, h, wd = x.shape
        qkv = torch.stack([w[f"{name}.{m}.weight"] for m in ("query", "key", "value")], 1).reshape(3 * c, c, 1, 1)
        bias = torch.stack([w[f"{name}.{m}.bias"] for m in ("query", "key", "value")], 1).reshape(3 * c)
        q, k, v = F.conv2d(gn(w, name + ".norm", x), qkv, bias).reshape(b, c, 3, -1).unbind(2)
        p = torch.einsum("ncq,nck->nqk", q, k / math.sqrt(c)).softmax(2)
        a = torch.einsum("nqk,nck->ncq", p, v).reshape(x.shape)
        return (conv(w, name + ".output", a) + x) * math.sqrt(0.5)

def block(style, w, name, x, e, change, fir):
    h = F.silu(gn(w, name + ".norm1", x))
    if change: h, x = change(fir, h), change(fir, x)
    h = conv(w, name + ".conv1", h) + lin(w, name + ".embedding", e)[:, :, None, None]
    h = conv(w, name + ".conv2", F.silu(gn(w, name + ".norm2", h)))
    if name + ".shortcut.weight" in w: x = conv(w, name + ".shortcut", x)
    return (x + h) / math.sqrt(2)

class Net:
    """channels, multipliers, blocks, attention heights, image channels and height; the rest by name."""
    def __init__(self, style, ch, mult, blocks, attn, img, size, fir, pyramid, features, classes=0, augment=0):
        self.__dict__.update(locals())
        s, e = Shapes(), 4 * ch
        s.linear("time.0", features, e); s.linear("time.1", e, e); s.conv("conv_in", img, ch, 3)
        if fir: s["time.frequencies"] = (features // 2,)
        if classes: s.linear("classes", classes, features)
        if augment: s.linear("augment", augment, features, bias=False)
        c, aux, skips = ch, img, [ch]
        for i, m in enumerate(mult):
            for j in range(blocks):
                s.block(f"down.{i}.block.{j}", c, ch * m, e); c = ch * m; skips.append(c)
                if size >> i in attn: s.attention(f"down.{i}.attention.{j}", c)
            if i + 1 < len(mult):
                s.block(f"down.{i}.downsample", c, c, e, True)
                if pyramid: s.conv(f"down.{i}.pyramid", aux, c, 3); aux = c
                skips.append(c)
        s.block("mid.block.0", c, c, e); s.attention("mid.attention", c); s.block("mid.block.1", c, c, e)
        for i, m in reversed(list(enumerate(mult))):
            for j in range(blocks + 1):
                s.block(f"up.{i}.block.{j}", c + skips.pop(), ch * m, e); c = ch * m
            if size >> i in attn: s.attention(f"up.{i}.attention.{blocks}", c)
            if i: s.block(f"up.{i}.upsample", c, c, e, True)
        s.norm("norm_out", c); s.conv("conv_out", c, img, 3)
        self.shapes = s

    def __call__(self, w, x, features, one_hot=None, aug=None):
        n, st = self, self.style
        if one_hot is not None: features = features + lin(w, "classes", one_hot * math.sqrt(n.classes))
        if aug is not None: features = features + aug @ w["augment.weight"].T
        e = F.silu(lin(w, "time.1", F.silu(lin(w, "time.0", features))))
        run = lambda name, x, change=None: block(st, w, name, x, e, change, n.fir)
        h, aux = conv(w, "conv_in", x), x
        hs = [h]
        for i in range(len(n.mult)):
            for j in range(n.blocks):
                h = run(f"down.{i}.block.{j}", hs[-1])
                if h.shape[2] in n.attn: h = st.attention(w, f"down.{i}.attention.{j}", h, True)
                hs.append(h)
            if i + 1 < len(n.mult):
                h = run(f"down.{i}.downsample", hs[-1], st.down)
                if n.pyramid: h = aux = (st.pyramid(w, f"down.{i}.pyramid", aux) + h) / math.sqrt(2)
                hs.append(h)
        h = run("mid.block.1", st.attention(w, "mid.attention", run("mid.block.0", hs[-1]), True))
        for i in reversed(range(len(n.mult))):
            for j in range(n.blocks + 1):
                h = run(f"up.{i}.block.{j}", torch.cat([h, hs.pop()], 1))
            if h.shape[2] in n.attn: h = st.attention(w, f"up.{i}.attention.{n.blocks}", h, True)
            if i: h = run(f"up.{i}.upsample", h, st.up)
        assert not hs
        return conv(w, "conv_out", F.silu(gn(w, "norm_out", h)))

def sinusoids(t, dim):
    f = torch.exp(-math.log(10000) * torch.arange(dim // 2) / (dim // 2 - 1))
    p = t[:, None] * f
    return torch.cat([p.sin(), p.cos()], 1)

def fourier(t, w):
    p = t[:, None] * w["time.frequencies"] * 2 * math.pi
    return torch.cat([p.sin(), p.cos()], 1)

def swapped(f):  # cos | sin, then the halves exchanged
    b, d = f.shape
    return torch.cat([f[:, d // 2:], f[:, :d // 2]], 1).reshape(b, 2, -1).flip(1).reshape(b, d)

rng = np.random.default_rng(7)
out, shapes = {}, {}
def record(name, net, seed, t, f, **extra):
    w = make(net.shapes, seed)
    x = torch.tensor(rng.standard_normal((2, net.img, net.size, net.size)), requires_grad=True)
    v = torch.tensor(rng.standard_normal(x.shape))
    y = f(w, x, torch.tensor(t))
    (g,) = torch.autograd.grad((y * v).sum(), x)
    shapes[name] = {k: list(s) for k, s in net.shapes.items()}
    for k, a in dict(x=x, t=torch.tensor(t), v=v, out=y, grad=g, **extra).items():
        out[f"{name}.{k}"] = a.detach().numpy()

net = Net(Song, 8, [1, 2], 2, [8], 3, 8, False, False, 8)
record("ddpmpp", net, 11, [0.013, 0.77], lambda w, x, t: net(w, x, sinusoids(999 * t, 8)))
net2 = Net(Song, 8, [1, 2, 2], 1, [4], 3, 8, True, True, 16)
sigma = lambda t: 0.01 * (50 / 0.01) ** t
record("ncsnpp", net2, 12, [0.013, 0.77], lambda w, x, t: net2(w, 2 * x - 1, fourier(torch.log(sigma(t)), w)))

labels, aug = torch.tensor([2, 0]), torch.tensor(rng.standard_normal((2, 9)))
def edm(net, features):
    def f(w, x, s):
        c = s[:, None, None, None]; d = 0.5
        one_hot = F.one_hot(labels, net.classes).to(x.dtype) if net.classes else None
        y = net(w, x / (c**2 + d**2).sqrt(), swapped(features(s.log() / 4, w)), one_hot, aug)
        return x * d**2 / (c**2 + d**2) + y * c * d / (c**2 + d**2).sqrt()
    return f
net3 = Net(Karras, 8, [2, 2], 1, [4], 3, 8, True, True, 16, classes=3, augment=9)
record("edm_ncsnpp", net3, 13, [0.05, 7.0], edm(net3, lambda t, w: fourier(t, w)), labels=labels, augment=aug)
net4 = Net(Karras, 8, [2, 2], 2, [4], 3, 8, False, False, 8, augment=9)
record("edm_ddpmpp", net4, 14, [0.05, 7.0], edm(net4, lambda t, w: sinusoids(t, 8)), augment=aug)

here = pathlib.Path(__file__).parent
np.savez(here / "unet_variants.npz", **out)
(here / "unet_variants.tensors.json").write_text(json.dumps(shapes, separators=(",", ":")) + "\n")
print(torch.__version__, {k: a.shape for k, a in out.items() if k.endswith("out")}, {k: float(abs(a).max()) for k, a in out.items() if k.endswith("out")})
