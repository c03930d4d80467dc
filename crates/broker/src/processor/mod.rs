//! What the broker does for each request: one module for each family of codes.
//!
//! Handlers are functions from the broker, the exchange and the request to a reply; what they
//! refuse they return as a [`Refusal`], which becomes the answer.

pub mod clean;
pub mod client;
pub mod group;
pub mod offset;
pub mod pull;
pub mod query;
pub mod relay;
pub mod send;
pub mod send_back;
pub mod stats;
pub mod topic;
pub mod unknown;

use std::borrow::Cow;

use remoting::{HeaderError, ResponseCode};

use crate::server::{Exchange, Reply};

/// Why a request is not done: the answer's code and remark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// RocketMQ's code for it.
    pub code: ResponseCode,
    /// Text for people.
    pub remark: Cow<'static, str>,
}

/// What a handler returns.
pub type Outcome = Result<Reply, Refusal>;

impl Refusal {
    /// A refusal with its reason.
    pub fn new(code: ResponseCode, remark: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            remark: remark.into(),
        }
    }

    /// `SYSTEM_ERROR`: what Java answers when a processor throws.
    pub fn error(remark: impl ToString) -> Self {
        Self::new(ResponseCode::SYSTEM_ERROR, remark.to_string())
    }
}

/// A field is missing or not a number: Java's processor throws.
impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Self::error(error)
    }
}

/// The store cannot read something: with file and place.
impl From<store::ReadError> for Refusal {
    fn from(error: store::ReadError) -> Self {
        Self::error(store::health::chain(&error))
    }
}

/// A body that cannot be read: Java's processor throws.
impl From<remoting::BodyError> for Refusal {
    fn from(error: remoting::BodyError) -> Self {
        Self::error(error)
    }
}

/// Answers with a body in RocketMQ's JSON.
pub(crate) fn json_body(exchange: &mut Exchange<'_>, body: &impl serde::Serialize) -> Outcome {
    let text = remoting::json::encode(body)?;
    Ok(exchange.body(&text))
}

/// Answers with an outcome.
pub fn settle(exchange: &mut Exchange<'_>, outcome: Outcome) -> Reply {
    outcome.unwrap_or_else(|refusal| exchange.refuse(refusal.code, refusal.remark))
}
