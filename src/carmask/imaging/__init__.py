"""Pixels, no learning: decoding, geometry, encoding, run lengths."""
