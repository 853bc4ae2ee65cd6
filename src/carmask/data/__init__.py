"""Training data: photos with masks, checks, splits, the cache, augmentation."""
