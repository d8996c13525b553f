"""Listeners of a run: progress, TensorBoard, Weights & Biases."""
