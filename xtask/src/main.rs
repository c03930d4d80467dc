//! Drives everything: ci, test, bench, fault.

fn main() {}
