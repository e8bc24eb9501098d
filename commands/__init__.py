"""The commands of main.py, a file each: the option you type is the file you open (-net and -resume: train.py)."""
