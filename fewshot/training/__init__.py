"""Meta-training: the loop, validation on held-out tasks, and progress callbacks."""

from .loop import TrainingSettings, TrainingState, meta_train
from .tensorboard import TensorBoardCallback
from .validation import Validation, split_tasks

__all__ = ["TensorBoardCallback", "TrainingSettings", "TrainingState", "Validation", "meta_train", "split_tasks"]
