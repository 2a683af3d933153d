"""Output of an evaluation: summary, tables, figures and an HTML report."""
