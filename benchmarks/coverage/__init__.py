"""Do intervals hold the truth, and do tests keep their size? Answered by simulation, for everything that is printed."""
