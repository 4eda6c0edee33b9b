"""Load pretrained networks by name and embed text; no other package imports transformers."""
