//! The message store: put, get, query, dispatch, recover. The facade that embedders use.
