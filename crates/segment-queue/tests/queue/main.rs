//! The queue from outside: against a model, on damaged directories, with concurrent readers.

mod files;
mod model;
mod preallocate;
mod readers;
