"""How each task reads an item and what it makes of the graph's outputs: a module a task, shipped beside run.py, which loads it by its path.

Python 3.9, numpy and the standard library; a module may import others of this folder (`from .probability import softmax`). See `part` in
run.py for what it must hold. `bundle` is run.py's Bundle; what cannot be answered raises `bundle.error`.
"""
