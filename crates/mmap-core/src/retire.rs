//! How a mapping ends: with the last of those who hold it, on whichever thread that is.
//!
//! RocketMQ counts by hand (`hold`, `release`) and unmaps by force when its patience ends, which is
//! what crashes its readers. Here nobody ends a mapping: whoever retires one (its file was deleted,
//! or more is mapped than may be) lets go of it as a reader does. What a holder has read is over
//! before the mapping is unmapped, whoever does it.

use std::ops::Deref;

use crate::sync::Arc;

/// A share in something that ends with its last share.
pub(crate) struct Held<T>(Arc<T>);

impl<T> Held<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(value))
    }

    /// Whether there are other shares at this moment. Only who keeps others from getting one (they
    /// come from this one, say) can rely on a no.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Whether another share is one in the same.
    #[inline]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Held<T> {
    #[inline]
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}
