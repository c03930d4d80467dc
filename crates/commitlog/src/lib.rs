//! The log of all messages: append, group commit, flush, read, recover.
