"""TensorRT and TensorRT-RTX: finding either, loading a plan, running it."""
