"""Pretrained networks: weights by name, loading, text embedding; the only importer of transformers."""
