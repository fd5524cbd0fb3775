"""What runs the processes: the launcher behind `make run` and `make demo`, images, examples."""
