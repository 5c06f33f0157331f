//! What is told of requests over HTTP.

use serde::Serialize;

use crate::serve::events::whom;

/// A request and its answer, over HTTP.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Requested {
    pub(crate) id: u64,
    pub(crate) peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) status: u16,
    pub(crate) body_bytes: u64,
    pub(crate) duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_agent: Option<String>,
}

/// What came and cannot be read as a request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BadRequest {
    pub(crate) id: u64,
    pub(crate) peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    pub(crate) error: String,
}

impl Requested {
    pub(super) fn text(&self) -> String {
        let status = match self.status {
            0 => "not answered".to_owned(),
            status => status.to_string(),
        };
        format!(
            "request {} from {}: {} {} {status}, {} bytes after {} ms",
            self.id,
            whom(&self.peer, &self.client),
            self.method,
            self.target,
            self.body_bytes,
            self.duration_ms
        )
    }
}

impl BadRequest {
    pub(super) fn text(&self) -> String {
        let whom = whom(&self.peer, &self.client);
        format!("bad request {} from {whom}: {}", self.id, self.error)
    }
}
