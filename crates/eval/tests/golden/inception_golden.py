"""Makes inception.npz and inception_resize.npz: features of synthetic weights, and of the published ones, by pytorch-fid's blocks and
torchvision's in float64, and images resized by torch, by Pillow, and by TensorFlow 1's formula written out.

Call: inception_golden.py OUT_DIR inception-2015-12-05.safetensors"""
import sys, numpy as np, torch, torchvision
import pytorch_fid.inception as fid
from PIL import Image
from safetensors.torch import load_file

torch.set_num_threads(1)
U = np.uint64
SEED = 2015


def uniform(k, n):
    with np.errstate(over="ignore"):
        position = (U(k) << U(40)) + np.arange(1, n + 1, dtype=U)
        z = U(SEED) + position * U(0x9E3779B97F4A7C15)
        z = (z ^ (z >> U(30))) * U(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> U(27))) * U(0x94D049BB133111EB)
        z = z ^ (z >> U(31))
    return (z >> U(11)).astype(np.float64) * 2.0**-52 - 1.0


def network():
    net = torchvision.models.inception_v3(num_classes=1008, aux_logits=False, weights=None, init_weights=False)
    net.Mixed_5b, net.Mixed_5c, net.Mixed_5d = (fid.FIDInceptionA(i, p) for i, p in [(192, 32), (256, 64), (288, 64)])
    net.Mixed_6b, net.Mixed_6c, net.Mixed_6d, net.Mixed_6e = (fid.FIDInceptionC(768, c) for c in [128, 160, 160, 192])
    net.Mixed_7b, net.Mixed_7c = fid.FIDInceptionE_1(1280), fid.FIDInceptionE_2(2048)
    return net.double().eval()


def fill(net):
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    for k, name in enumerate(sorted(state)):
        shape, u = tuple(state[name].shape), uniform(k, state[name].numel())
        if name.endswith("conv.weight"):
            u = np.sqrt(6 / np.prod(shape[1:])) * u
        elif name == "fc.weight":
            u = np.sqrt(3 / 2048) * u
        elif name.endswith("bn.weight"):
            u = 1 + 0.2 * u
        elif name.endswith("running_var"):
            u = 1 + 0.5 * u
        else:
            u = 0.1 * u
        state[name] = torch.tensor(u.astype(np.float32).astype(np.float64).reshape(shape))
    net.load_state_dict(state, strict=False)


def features(net, x):
    mean = lambda x: x.mean((2, 3))
    x = torch.nn.functional.max_pool2d(net.Conv2d_2b_3x3(net.Conv2d_2a_3x3(net.Conv2d_1a_3x3(x))), 3, 2)
    out = {"64": mean(x)}
    x = torch.nn.functional.max_pool2d(net.Conv2d_4a_3x3(net.Conv2d_3b_1x1(x)), 3, 2)
    out["192"] = mean(x)
    for block in (net.Mixed_5b, net.Mixed_5c, net.Mixed_5d, net.Mixed_6a, net.Mixed_6b, net.Mixed_6c):
        x = block(x)
    out["spatial"] = net.Mixed_6d.branch1x1(x)[:, :7].permute(0, 2, 3, 1).reshape(len(x), -1)
    x = net.Mixed_6e(net.Mixed_6d(x))
    out["768"] = mean(x)
    x = net.Mixed_7c(net.Mixed_7b(net.Mixed_7a(x)))
    out["2048"] = mean(x)
    out["logits"] = net.fc(out["2048"])
    out["logits-without-bias"] = out["logits"] - net.fc.bias
    return out


def levels(k, *shape):
    return np.floor(128 * (uniform(k, int(np.prod(shape))) + 1)).astype(np.uint8).reshape(shape)


def tf1(x, size):
    """resize_bilinear of TensorFlow 1 with align_corners=False, in float64."""
    def axis(x, n, dim):
        p = np.arange(size) * (n / size)
        low = np.floor(p).astype(int)
        high, part = np.minimum(low + 1, n - 1), p - low
        part = part.reshape([-1 if d == dim else 1 for d in range(x.ndim)])
        return np.take(x, low, dim) * (1 - part) + np.take(x, high, dim) * part
    x = x.astype(np.float64)
    return axis(axis(x, x.shape[2], 2), x.shape[3], 3)


def pil(x, size):
    one = lambda c: np.asarray(Image.fromarray(c.astype(np.float32), mode="F").resize((size, size), Image.BICUBIC)).clip(0, 255)
    return np.stack([np.stack([one(c) for c in image]) for image in x])


out = sys.argv[1]
net = network()
fill(net)
images = levels(1000, 2, 3, 40, 52)
x = torch.nn.functional.interpolate(torch.tensor(images).double() / 255, size=(299, 299), mode="bilinear", align_corners=False)
with torch.no_grad():
    arrays = {k: v.numpy().astype(np.float32) for k, v in features(net, 2 * x - 1).items()}
net.load_state_dict({k: v.double() for k, v in load_file(sys.argv[2]).items()}, strict=False)
with torch.no_grad():
    for k, v in features(net, 2 * x - 1).items():
        if not k.startswith("logits"):
            arrays[f"published.{k}"] = v.numpy().astype(np.float32)
    y = torch.tensor((tf1(images, 299) - 128) / 128)
    arrays["published.2048.tf"] = features(net, y)["2048"].numpy().astype(np.float32)
for k, v in arrays.items():
    print(k, v.shape, np.abs(v).max(), v.std())
np.savez(f"{out}/inception.npz", images=images, **arrays)
with open(f"{out}/inception.layers.txt", "w") as f:
    for name, p in net.state_dict().items():
        if name.endswith("conv.weight"):
            print(name.removesuffix(".conv.weight"), *p.shape, file=f)
arrays = {}
for k, (height, width, size) in enumerate([(5, 7, 13), (40, 31, 12), (9, 23, 16)]):
    images = levels(1001 + k, 1, 3, height, width)
    x = torch.tensor(images).double()
    arrays[f"{k}.images"] = images
    arrays[f"{k}.bilinear"] = torch.nn.functional.interpolate(x, size=(size, size), mode="bilinear", align_corners=False).numpy()
    arrays[f"{k}.bilinear-tf1"] = tf1(images, size)
    arrays[f"{k}.bicubic-antialiased"] = pil(images, size).astype(np.float64)
np.savez(f"{out}/inception_resize.npz", **arrays)
