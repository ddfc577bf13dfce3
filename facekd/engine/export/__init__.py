"""A model to an ONNX file in the form asked for, proven equal to the model before it gets its name."""
