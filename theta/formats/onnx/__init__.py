"""ONNX, its external data, and protobuf below them."""
