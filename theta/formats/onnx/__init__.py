"""ONNX, its external data, and its wire format protobuf."""
