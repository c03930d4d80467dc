//! Named places where a test injects an error or ends the process.
//!
//! Without the feature `failpoints`, [`failpoint!`](crate::failpoint!) expands to nothing.

/// A place where a test can interfere.
///
/// `failpoint!("crate.operation")` can only end the process;
/// `failpoint!("crate.operation", |source| error)` can also return `Err(error)` from the function
/// around it, made from an injected [`std::io::Error`].
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($($arguments:tt)*) => {};
}
