//! Fixed-size segment files named by their first offset, seen as one long address space.
