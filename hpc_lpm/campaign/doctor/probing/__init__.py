"""What ranks measure for the doctor: themselves, their clocks, files and links."""
