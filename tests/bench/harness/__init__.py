"""What all benchmarks share: servers whose CPU and memory are read, clients that load them, figures that are kept."""
