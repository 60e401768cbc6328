"""What the files of a thread's sandbox were when its runs ended."""
