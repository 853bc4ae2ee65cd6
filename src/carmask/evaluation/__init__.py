"""Metrics, evaluation of a model on a data set, and the report."""
