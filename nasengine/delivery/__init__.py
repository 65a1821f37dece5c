"""What leaves the engine: ONNX, one self-contained Python file, the architecture's picture."""
