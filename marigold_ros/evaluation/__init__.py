"""Evaluation of predicted depth against ground truth: metrics, step policies, reports."""
