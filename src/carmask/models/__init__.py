"""The one U-Net class and its presets."""
