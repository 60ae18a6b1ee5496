"""Running a training on ranks."""
