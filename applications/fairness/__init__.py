"""Few-shot adaptation under group fairness. Begun: its modules are tested, and are exported when their figures exist."""
