"""``python -m fewshot``: the same as the command ``fewshot``."""

from .cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
