"""What is the game? Pure: no MPI, no files, no vLLM."""
