"""Review of masks: a page with the most doubtful photos, and what people decided on it."""
