"""Few-shot adaptation under group fairness. Empty until built."""
