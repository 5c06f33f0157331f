//! The client's side of HTTP/1.1 (RFC 9112): a request as bytes, and where in the stream the answers to it end. Pure:
//! the connection, its deadlines and what is done with a body are the caller's.

mod body;
mod chunked;
mod error;
mod head;
mod request;
mod response;

#[cfg(test)]
mod tests;

#[allow(
    unused_imports,
    reason = "what its functions return, for those who look closer than `bench`"
)]
pub(crate) use self::request::BadRequest;
pub(crate) use self::{
    body::{Exactly, InChunks},
    error::BadResponse,
    request::{Field, Framing, RequestLine, has_body, host_field, request, request_head},
    response::{Progress, Response, ResponseReader},
};
