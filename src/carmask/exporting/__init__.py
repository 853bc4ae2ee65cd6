"""From weights to one self-describing ONNX file, compared with PyTorch before it is written."""
