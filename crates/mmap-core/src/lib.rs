//! Memory-mapped files and everything the kernel does for them. The only crate with unsafe.
