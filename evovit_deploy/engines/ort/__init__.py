"""What the ONNX Runtime engine is made of: sessions, what a file says of itself, memory and graphs on a GPU."""
