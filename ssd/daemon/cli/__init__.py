"""What every command line of ours has: exit codes, the guard around it, help, completion, how it speaks."""
