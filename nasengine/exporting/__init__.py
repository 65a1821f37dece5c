"""Networks in other forms than torch's: what is checked of them, ONNX, integers of 8 bits."""
