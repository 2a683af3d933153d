"""How good depth is: metrics and evaluation against ground truth."""
