"""Train a small Evo-DeiT on the handwritten digits that scikit-learn ships, and save it as the paper's authors would.

    python examples/digits/train.py            # some CPU minutes; writes beside this file

Writes ``evo_deit_digits.pth`` (the authors' checkpoint format, training-only heads included), ``test/<class>/<n>.png``
(the held-out images) and ``labels.txt``. The images are the 1797 scans of scikit-learn's ``load_digits`` (8 x 8 grey
pixels, UCI Optical Recognition of Handwritten Digits), each enlarged with a bicubic filter and put somewhere on an empty
canvas, so that about half of the patches carry ink and the model has something to select.
"""

from __future__ import annotations

import argparse
import copy
import io
import math
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from evovit_deploy.images.decode import load_image
from evovit_deploy.images.transform import preprocess
from evovit_deploy.models.vit.vit import VisionTransformer
from evovit_deploy.recipes import Evolution, Structure, Transform
from evovit_deploy.storage.files import write_bytes

STRUCTURE = Structure(image_size=64, patch_size=8, embed_dim=64, depth=12, num_heads=1, num_classes=10)
EVOLUTION = Evolution(keep_ratios=(1.0,) * 4 + (0.5,) * 8, tradeoff=(1.0,) * 4 + (0.5,) * 8)  # the published schedule
TRANSFORM = Transform()

SIZE = STRUCTURE.image_size  # the PNG files have the model's input size too
DIGIT = 44  # pixels a digit takes on its canvas; the eval transform enlarges it to 50
JITTER = 4  # how far its centre may lie from the canvas's; the centre crop then still shows all of it

BATCH, PEAK_LR, WEIGHT_DECAY, WARMUP_EPOCHS = 64, 2e-3, 0.05, 4
CLS_LOSS = 0.5  # weight of the class-token head; without it the class attention would learn nothing
EMA_DECAY = 0.99
THREADS = 1  # fixed, because the order of a sum depends on it


def sincos() -> Tensor:
    """Two-dimensional sine-cosine positions, [N, C]: where the position embedding starts from.

    From a random start the model takes about twice as many epochs to find out which patches are neighbours.
    """
    side, rates = STRUCTURE.image_size // STRUCTURE.patch_size, STRUCTURE.embed_dim // 4
    waves = torch.arange(side)[:, None] * (math.pi / side) * 8 ** (torch.arange(rates) / rates)
    axis = torch.cat((waves.sin(), waves.cos()), 1)
    grid = torch.cat((axis[:, None].expand(-1, side, -1), axis[None].expand(side, -1, -1)), -1)
    return 0.5 * grid.reshape(side * side, -1)


class Trainee(VisionTransformer):
    """The inference model plus the authors' auxiliary head on the class token.

    The classification head sees the patches only. The class token, by whose attention tokens are selected, gets its
    training signal from ``head_cls(norm_cls(cls))``, as in the paper; deployment drops both.
    """

    def __init__(self) -> None:
        # The one-hot GEMM passes gradients to kept and bypassed tokens; trim would leave the last class query out.
        super().__init__(STRUCTURE, EVOLUTION, pattern="onehot", transform=TRANSFORM, trim=False)
        self.norm_cls = nn.LayerNorm(STRUCTURE.embed_dim, eps=1e-6)
        self.head_cls = nn.Linear(STRUCTURE.embed_dim, STRUCTURE.num_classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02 if module in (self.head, self.head_cls) else 0.1)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self.pos_embed.data[:, 1:] = sincos()

    def both(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, S, S] -> logits of the patch head and of the class-token head, [B, classes] each."""
        last: list[Tensor] = []
        hook = self.blocks[-1].register_forward_hook(lambda _, __, output: last.append(output[0]))
        logits = self(images)[0]
        hook.remove()
        return logits, self.head_cls(self.norm_cls(last[0][:, 0]))


def authors_state(model: Trainee) -> OrderedDict[str, Tensor]:
    """State dict under the authors' key names: qkv split into ``qks`` and ``vs``, norms and projections beside the blocks."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in model.state_dict().items():
        value = value.detach().clone()
        part = key.split(".")
        if part[0] == "patch_embed":
            state[f"patch_embed.proj.{part[1]}"] = value
        elif part[0] != "blocks":
            state[key] = value
        elif part[2] == "norm1":
            state[f"norms.{part[1]}.{part[3]}"] = value
        elif part[2] == "norm2":
            state[key] = value
        elif part[2] in ("fc1", "fc2"):
            state[f"blocks.{part[1]}.mlp.{part[2]}.{part[3]}"] = value
        elif part[3] == "proj":
            state[f"projs.{part[1]}.{part[4]}"] = value
        else:
            rows = 2 * STRUCTURE.embed_dim
            state[f"qks.{part[1]}.qk.{part[4]}"] = value[:rows].clone()  # a view would be saved with all its storage
            state[f"vs.{part[1]}.v.{part[4]}"] = value[rows:].clone()
    return state


def draw(digit: np.ndarray, dx: int, dy: int) -> Image.Image:
    """An 8 x 8 scan (0 to 16) as a grey canvas of SIZE x SIZE pixels, its centre moved by (dx, dy) pixels."""
    scan = Image.fromarray((digit * (255 / 16)).round().astype(np.uint8))
    canvas = Image.new("L", (SIZE, SIZE))
    corner = (SIZE - DIGIT) // 2
    canvas.paste(scan.resize((DIGIT, DIGIT), Image.Resampling.BICUBIC), (corner + dx, corner + dy))
    return canvas


def crop(image: Image.Image) -> Tensor:
    """The eval transform up to the normalisation: [1, SIZE, SIZE], 0 to 1."""
    pixels = preprocess(image.convert("RGB"), TRANSFORM, SIZE, "uint8")[..., 0]
    return torch.from_numpy(pixels.astype(np.float32) / 255)[None]


def normalise(pixels: Tensor) -> Tensor:
    """[B, 1, S, S] from 0 to 1 -> [B, 3, S, S], normalised by ImageNet's mean and deviation."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (TRANSFORM.mean, TRANSFORM.std))
    return (pixels - mean) / std


def augment(pixels: Tensor) -> Tensor:
    """Turn by up to 12 degrees, scale and stretch by a tenth, shear a little, put anywhere; [B, 1, S, S] -> the same."""
    count = len(pixels)

    def uniform(bound: float) -> Tensor:
        return (torch.rand(count) * 2 - 1) * bound

    angle, shear = uniform(math.radians(12)), uniform(0.1)
    wide, high = 1 + uniform(0.1), 1 + uniform(0.1)
    reach = 2 * JITTER * TRANSFORM.resize_ratio / SIZE  # in units of half the frame, as affine_grid counts
    matrix = torch.stack(
        (
            torch.stack((angle.cos() * wide, -angle.sin() + shear, uniform(reach)), -1),
            torch.stack((angle.sin(), angle.cos() * high, uniform(reach)), -1),
        ),
        1,
    )
    grid = F.affine_grid(matrix, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def write_test_split(folder: Path, images: list[Image.Image], labels: np.ndarray, numbers: np.ndarray) -> None:
    """Write ``folder/<class>/<number in load_digits>.png``, replacing what an earlier run left there."""
    for old in folder.glob("[0-9]/[0-9][0-9][0-9][0-9].png"):
        old.unlink()
    for image, label, number in zip(images, labels, numbers):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
        image.save(folder / str(label) / f"{number:04d}.png", optimize=True)


@torch.no_grad()
def accuracy(model: Trainee, folder: Path) -> float:
    """Share of the PNG files under ``folder`` that are classified as the folder they lie in."""
    files = sorted(folder.glob("*/*.png"))
    images = torch.from_numpy(np.stack([preprocess(load_image(file), TRANSFORM, SIZE) for file in files]))
    labels = torch.tensor([int(file.parent.name) for file in files])
    model.eval()
    found = torch.cat([model(batch)[0].argmax(-1) for batch in images.split(90)])
    return (found == labels).float().mean().item()


def main() -> None:
    """Command line: train, evaluate on the PNG files, write the checkpoint."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write into")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    torch.manual_seed(options.seed)
    torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(True)
    torch.set_flush_denormal(True)

    digits = load_digits()
    train, test = train_test_split(
        np.arange(len(digits.target)), test_size=0.2, stratify=digits.target, random_state=options.seed
    )
    test.sort()
    moves = np.random.default_rng(options.seed).integers(-JITTER, JITTER + 1, (len(test), 2))
    canvases = [draw(digits.images[i], int(dx), int(dy)) for i, (dx, dy) in zip(test, moves)]
    write_test_split(options.out / "test", canvases, digits.target[test], test)
    write_bytes(options.out / "labels.txt", "".join(f"{name}\n" for name in digits.target_names).encode())

    pixels = torch.stack([crop(draw(digits.images[i], 0, 0)) for i in train])  # `augment` moves them about
    labels = torch.from_numpy(digits.target[train])

    model = Trainee()
    ema = copy.deepcopy(model)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}], lr=PEAK_LR
    )
    steps = len(train) // BATCH
    warmup, total = WARMUP_EPOCHS * steps, options.epochs * steps
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min((i + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * min(i / total, 1)))
    )

    start = time.perf_counter()
    for epoch in range(options.epochs):
        model.train()
        seen, right, summed = 0, 0, 0.0
        for chosen in torch.randperm(len(train))[: steps * BATCH].split(BATCH):
            logits, cls_logits = model.both(normalise(augment(pixels[chosen])))
            target = labels[chosen]
            loss = F.cross_entropy(logits, target, label_smoothing=0.05)
            loss = loss + CLS_LOSS * F.cross_entropy(cls_logits, target, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                for average, current in zip(ema.parameters(), model.parameters()):
                    average.lerp_(current, 1 - EMA_DECAY)
            seen, right = seen + len(target), right + int((logits.argmax(-1) == target).sum())
            summed += loss.item() * len(target)
        minutes = (time.perf_counter() - start) / 60
        print(
            f"epoch {epoch + 1}/{options.epochs}  loss {summed / seen:.3f}  train accuracy {right / seen:.3f}  "
            f"{minutes:.1f} min",
            flush=True,
        )

    checkpoint = {
        "model": authors_state(model),
        "optimizer": {**optimizer.state_dict(), "state": {}},  # the moments would triple the file; nobody resumes this
        "lr_scheduler": {"t_initial": options.epochs, "last_epoch": options.epochs - 1},
        "epoch": options.epochs - 1,
        "scaler": {"scale": 1.0},  # FP32 throughout
        "args": argparse.Namespace(
            model="evo_deit_digits_patch8_64",
            input_size=STRUCTURE.image_size,
            nb_classes=STRUCTURE.num_classes,
            epochs=options.epochs,
            seed=options.seed,
        ),
        "model_ema": authors_state(ema),
    }
    buffer = io.BytesIO()  # torch.save to a path would write the temporary file's name into the archive
    torch.save(checkpoint, buffer)
    write_bytes(options.out / "evo_deit_digits.pth", buffer.getvalue())
    for name, weights in (("model", model), ("model_ema", ema)):
        print(f"test accuracy of {name}: {accuracy(weights, options.out / 'test'):.4f} on {len(test)} images")


if __name__ == "__main__":
    main()
