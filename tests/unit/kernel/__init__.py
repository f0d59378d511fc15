"""The parts of the kernel binding that need no kernel: BTF, encoding, packed messages, layouts."""
