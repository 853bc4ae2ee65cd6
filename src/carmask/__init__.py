"""carmask: cut vehicles out of photographs with U-Net segmentation models."""

__version__ = "0.1.0"
