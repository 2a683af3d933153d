"""The fine-tuning protocol, and how the embedded checkpoint was trained."""
