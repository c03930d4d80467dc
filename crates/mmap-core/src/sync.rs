//! What threads meet by: the standard library's types, or loom's in a build with `--cfg loom`.
//!
//! The protocols that the models of `cargo xtask loom` go through are written over these. Loom's
//! types work within a model only, so that nothing else can be run in such a build.

#[cfg(not(loom))]
pub use std::sync::{
    Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic,
};

#[cfg(loom)]
pub use loom::{
    cell, model,
    sync::{Arc, Condvar, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard, atomic},
    thread,
};
