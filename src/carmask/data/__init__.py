"""What there is to learn from: pairs, checks, splits, the cache, augmentation, example data."""
