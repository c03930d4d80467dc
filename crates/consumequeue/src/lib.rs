//! Per topic-queue index over the commit log: 20-byte entries.
