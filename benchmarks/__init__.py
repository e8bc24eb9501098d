"""What is claimed about speed, each as a command that measures it."""
