"""How fast this machine cuts vehicles out: engines, stages, the whole, and beside them the naive way."""
