"""What is painted on the surfaces, sample by sample: lamps, windows, gaps, grilles, spokes."""
