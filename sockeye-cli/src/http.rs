//! The client's side of HTTP/1.1 (RFC 9112): a request as bytes, and where in the stream the answers to it end. Pure:
//! the connection, its deadlines and what is done with a body are the caller's.

mod chunked;
mod error;
mod head;
mod request;
mod response;

#[cfg(test)]
mod tests;

pub(crate) use self::error::BadResponse;
pub(crate) use self::request::{BadRequest, host_field, request};
pub(crate) use self::response::{Progress, Response, ResponseReader};
