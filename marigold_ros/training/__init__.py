"""The fine-tuning protocol: targets, noise, losses, the small VAE and the U-Net."""
