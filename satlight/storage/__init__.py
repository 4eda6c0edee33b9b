"""Trained routers on disk: class paths and arguments as JSON, weights as safetensors, never a pickle."""
