"""Many photos: decode, infer and encode side by side."""
