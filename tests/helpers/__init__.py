"""What tests share: fakes, emulators, samples and processes. Nothing here is a test."""
