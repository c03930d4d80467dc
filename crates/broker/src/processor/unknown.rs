//! Codes that nobody serves: one log line for each, however often it comes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use remoting::{RequestCode, ResponseCode};

use super::Refusal;

/// Kinds that are remembered; a client that makes codes up shall not fill memory or the log.
const KIND_COUNT_MAX: usize = 256;

/// The codes that were refused so far.
#[derive(Debug, Default)]
pub struct UnknownCodes {
    seen: Mutex<BTreeSet<i32>>,
}

impl UnknownCodes {
    /// The answer to such a code.
    pub fn refuse(&self, server: &'static str, code: RequestCode) -> Refusal {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < KIND_COUNT_MAX && seen.insert(code.0) {
            tracing::warn!(server, %code, "requests of this kind are not supported");
        }
        drop(seen);
        // NettyRemotingAbstract.processRequestCommand's words.
        let remark = format!(" request type {} not supported", code.0);
        Refusal::new(ResponseCode::REQUEST_CODE_NOT_SUPPORTED, remark)
    }
}
