//! Where the choices of a seed come from.

pub use mmap_core::Random;
