//! The broker's tables, each kept as a JSON file under `config/` in the store's directory, in the
//! form that a Java broker reads and writes.

pub mod json_file;
