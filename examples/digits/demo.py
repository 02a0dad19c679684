"""The main job on a trained model: checkpoint -> ONNX -> proof -> benchmark -> predictions -> service.

Every step is an `evovit` command as a person would type it; run it with `make demo`. Files land in `demo/`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(os.path.relpath(Path(__file__).resolve().parent))
OUT = Path("demo")
EVOVIT = Path(sys.executable).with_name("evovit")


def run(*arguments: str | Path) -> None:
    """Show a command and run it, in the terminal if there is one; stop the demo if it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ evovit {' '.join(words)}", flush=True)
    code = subprocess.run([EVOVIT, *words]).returncode
    if code:
        sys.exit(code)


def serve(model: Path, labels: Path, image: Path) -> None:
    """Start the service on free ports, ask it twice with real clients, and stop it with SIGTERM."""
    import urllib.request

    import numpy as np
    from tritonclient.http import InferenceServerClient, InferInput

    words = [f"digits={model}", "--labels", labels, "--port", "0", "--grpc-port", "0", "--no-access-log"]
    print(f"\n$ evovit serve {' '.join(map(str, words))}", flush=True)
    with subprocess.Popen([EVOVIT, "serve", *words], stderr=subprocess.PIPE, text=True) as service:
        assert service.stderr is not None
        address = ""
        for line in service.stderr:
            print(line, end="", flush=True)
            if line.startswith("ready: http"):
                address = line.split()[-1]
            elif line.startswith("ready: grpc"):
                break
        if not address:
            sys.exit(service.wait() or 1)
        request = urllib.request.Request(
            f"{address}/v1/classify?top_k=1", image.read_bytes(), {"Content-Type": "image/png"}
        )
        with urllib.request.urlopen(request) as response:
            print(f"POST /v1/classify with {image.name}: {response.read().decode()}")
        with InferenceServerClient(address.removeprefix("http://")) as client:
            shape = [2, *client.get_model_metadata("digits")["inputs"][0]["shape"][1:]]
            tensor = InferInput("images", shape, "FP32")
            tensor.set_data_from_numpy(np.zeros(shape, np.float32))
            logits = client.infer("digits", [tensor]).as_numpy("logits")
            print(f"tritonclient over HTTP: logits {logits.shape} {logits.dtype}")
        service.terminate()
        print(f"stopped, exit code {service.wait()}")


def main() -> None:
    """Run the demo from any folder; results go to ./demo."""
    checkpoint, images, labels = HERE / "evo_deit_digits.pth", HERE / "test", HERE / "labels.txt"
    OUT.mkdir(exist_ok=True)
    model, half, record = OUT / "digits.onnx", OUT / "digits_fp16.onnx", OUT / "bench.jsonl"
    run("inspect", checkpoint)
    run("export", checkpoint, "-o", model)
    run("export", checkpoint, "-o", half, "--precision", "fp16", "--outputs", "logits,kept")
    run("verify", checkpoint, half, "--images", images / "3")
    run("bench", "--engine", model, "--batch", "1,8", "--quick", "--provider", "cpu", "--record", record)
    some = [sorted((images / digit).iterdir())[0] for digit in "0479"]
    run("predict", model, *some, "--labels", labels)
    print(
        f"\n$ evovit predict {model} {images} --labels {labels} --accuracy --json > {OUT / 'predictions.json'}",
        flush=True,
    )
    words = [EVOVIT, "predict", model, images, "--labels", labels, "--accuracy", "--json"]
    result = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    (OUT / "predictions.json").write_text(result.stdout)
    document = json.loads(result.stdout)
    print(f"accuracy on {len(document['results'])} real test images: {json.dumps(document['accuracy'])}")
    serve(model, labels, images / "7" / "0081.png")
    print("\nWritten:")
    for path in sorted(OUT.iterdir()):
        print(f"  {path}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:  # the command that was running has said so
        sys.exit(130)
