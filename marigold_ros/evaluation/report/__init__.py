"""What an evaluation leaves: summary, tables, figures and a page."""
