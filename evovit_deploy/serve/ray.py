"""The name under which Ray Serve config files know the application: ``import_path: evovit_deploy.serve.ray:app``."""

from ..cluster import app

__all__ = ["app"]
