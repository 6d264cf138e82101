"""Lists -> weights.

config.py      what to learn from, how long and where: TOML, and what is said over it
material.py    the lists: to learn from, to compare epochs by, to measure the result on
batches.py     lists -> tensors on a device
fitting.py     epochs: the steps, the best weights, when to end
checkpoint.py  where a training stands after an epoch, in one file
board.py       the course of a training, for TensorBoard
finishing.py   nets -> weights as they serve: silent inputs, calibration, the price weight, files
report.py      how good the result is
course.py      all of it: a configuration -> weights and a report
"""
