"""Training of CCL segmentation networks from few, imbalanced labels."""
