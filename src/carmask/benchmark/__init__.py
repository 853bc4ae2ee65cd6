"""How fast this machine cuts out vehicles: engines, stages, the whole pipeline, and a naive baseline."""
