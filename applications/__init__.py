"""Applications of the core, imported as ``fewshot.applications``: medicine, reinforcement learning, fairness.

An application imports the core and nothing else of this project; applications do not import one another.
"""
