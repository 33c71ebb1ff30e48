"""Backends: the libraries that run a network."""
