"""Triton's ``onnxruntime`` backend, in Python: runs the model file of a version folder on a CPU.

Triton loads it for ``backend: "onnxruntime"`` from a folder of that name among its backends. Tensors cross by DLPack, as the
server was built for numpy 1 and reads the size of an array of numpy 2 as 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


def _report(problem: Any) -> None:
    # Triton names a used capsule differently from numpy, which complains when it is thrown away: noise, for every output.
    if "PyCapsule_GetPointer" not in str(problem.exc_value):
        sys.__unraisablehook__(problem)


sys.unraisablehook = _report


class TritonPythonModel:
    """One instance of a model."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the model file of the version."""
        config = json.loads(args["model_config"])
        assert args["model_instance_kind"] == "CPU", args
        path = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.input = config["input"][0]["name"]
        self.batching = config["max_batch_size"] > 0
        self.label = f"{args['model_name']}:{args['model_version']}"

    def execute(self, requests: list[Any]) -> list[Any]:
        """One run for all of ``requests``, as the real backend does it; without batching, one run each."""
        groups = [requests] if self.batching else [[request] for request in requests]
        return [response for group in groups for response in self._run(group)]

    def _run(self, requests: list[Any]) -> list[Any]:
        batches = [np.from_dlpack(pb.get_input_tensor_by_name(request, self.input)) for request in requests]
        images = np.concatenate(batches)
        print(f"ran {self.label} on {len(images)} images of {len(requests)} requests", flush=True)
        names = [output.name for output in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(names, {self.input: images})))
        responses, start = [], 0
        for request, batch in zip(requests, batches):
            rows = slice(start, start := start + len(batch))
            wanted = [
                pb.Tensor.from_dlpack(name, np.ascontiguousarray(outputs[name][rows]))
                for name in request.requested_output_names()
            ]
            responses.append(pb.InferenceResponse(wanted))
        return responses
