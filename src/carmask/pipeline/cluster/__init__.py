"""The same masks by many machines, on Ray Data, which does all scheduling, retrying and holding back."""
