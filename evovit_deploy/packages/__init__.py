"""What it takes to run a model elsewhere, written from the templates in ``engines/serving``.

from pathlib import Path
from evovit_deploy.packages import ServiceOptions, container, read_contents

container(read_contents(Path("model.onnx")), Path("image"), ServiceOptions(max_batch=16))
"""

from .container import container
from .contents import Contents, read_contents
from .kubernetes import Cluster, kubernetes
from .options import ServiceOptions
from .ray_config import ray_config

__all__ = ["Cluster", "Contents", "ServiceOptions", "container", "kubernetes", "ray_config", "read_contents"]
