"""Segment video files and cameras, frame by frame."""
