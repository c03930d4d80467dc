//! Criterion benches of the crates: see `benches/`.
