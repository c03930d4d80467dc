//! Hash index files: message key to commit-log offsets, by time.
