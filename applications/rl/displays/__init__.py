"""Pictures of policies: return against adaptation step, learning curves, paths, animated episodes."""
