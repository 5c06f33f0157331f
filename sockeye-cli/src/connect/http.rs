//! `--http`: one request, and the answer to it, of which the body goes to stdout and with `-v` the head to stderr.

use std::fs::File;
use std::io::{self, Cursor, IsTerminal, Read, Seek, stdin};
use std::mem;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::anyhow;
use sockeye::client::Target;

use crate::cli::connect::Connect;
use crate::connect::side::{file, texts};
use crate::exit::{Failure, escaped};
use crate::http::{
    BadResponse, Exactly, Field, Framing, InChunks, Progress, RequestLine, Response,
    ResponseReader, has_body, host_field, request_head,
};
use crate::output::talk;

/// How long nothing may move, unless `--idle-timeout` says otherwise.
pub(crate) const IDLE: Duration = Duration::from_secs(60);

/// Of a body whose length nobody knows so much is read before it is sent: not every server takes chunks, and most bodies
/// are shorter.
const READ_AHEAD_BYTES: u64 = 1024 * 1024;

/// The request as bytes: its head, and its body as that is read.
pub(crate) fn request(
    arguments: &Connect,
    line: &RequestLine,
    target: &Target,
    tls: bool,
) -> Result<Box<dyn Read + Send>, Failure> {
    let host = match target {
        Target::Host(host, port) => host_field(host, *port, tls),
        _ => "localhost".to_owned(),
    };
    let in_chunks = arguments.header.iter().any(Field::is_chunked);
    let (framing, body) = body(arguments, line, in_chunks)?;
    let RequestLine { method, path } = line;
    let head = request_head(method, path, &host, &arguments.header, framing);
    let head = head.map_err(|error| Failure::usage(anyhow!(error).context("--http")))?;
    Ok(Box::new(Cursor::new(head).chain(body)))
}

/// The body, framed: what `--send` or `--send-file` gives, or stdin with a method that has a body, but nothing that would
/// have to be typed.
fn body(
    arguments: &Connect,
    line: &RequestLine,
    in_chunks: bool,
) -> Result<(Framing, Box<dyn Read + Send>), Failure> {
    let cannot = |error: io::Error| {
        Failure::usage(anyhow!(error).context("cannot read the body of the request"))
    };
    if !arguments.send.is_empty() {
        let body = texts(arguments);
        let length = body.len() as u64;
        return framed(Cursor::new(body), Some(length), in_chunks).map_err(cannot);
    }
    let file = match &arguments.send_file {
        Some(path) => file(path)?,
        None if has_body(&line.method) && !stdin().is_terminal() => {
            // A second descriptor of the same: what is read through it is not buffered elsewhere.
            let descriptor = stdin().as_fd().try_clone_to_owned();
            File::from(descriptor.map_err(cannot)?)
        }
        None if in_chunks => {
            let error = anyhow!("there is no body to send in chunks");
            return Err(
                Failure::usage(error).with_hint("--send TEXT or --send-file FILE gives one")
            );
        }
        None => return Ok((Framing::NoBody, Box::new(io::empty()))),
    };
    let length = length(&file).map_err(cannot)?;
    framed(file, length, in_chunks).map_err(cannot)
}

/// What is still to be read of a regular file; of anything else it is not known. Nor is it if that is nothing: the files of
/// /proc all say so of themselves (proc(5)).
fn length(mut file: &File) -> io::Result<Option<u64>> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let left = metadata.len().saturating_sub(file.stream_position()?);
    Ok((left > 0).then_some(left))
}

fn framed(
    mut body: impl Read + Send + 'static,
    length: Option<u64>,
    in_chunks: bool,
) -> io::Result<(Framing, Box<dyn Read + Send>)> {
    if in_chunks {
        return Ok((Framing::Chunked, Box::new(InChunks::new(body))));
    }
    if let Some(length) = length {
        return Ok((
            Framing::Length(length),
            Box::new(Exactly::new(body, length)),
        ));
    }
    let mut start = Vec::new();
    let most = READ_AHEAD_BYTES + 1;
    (&mut body).take(most).read_to_end(&mut start)?;
    let bytes = start.len() as u64;
    let start = Cursor::new(start);
    if bytes < most {
        return Ok((Framing::Length(bytes), Box::new(start)));
    }
    let all = start.chain(body);
    Ok((Framing::Chunked, Box::new(InChunks::new(all))))
}

/// The answer, as it comes.
pub(crate) struct Answer {
    reader: ResponseReader,
    tells_heads: bool,
    /// Goes round with the buffers of the output.
    body: Vec<u8>,
    pub(crate) body_bytes: u64,
    /// Bytes that came with the answer's last ones and are no part of it.
    pub(crate) beyond: usize,
}

impl Answer {
    pub(crate) fn to(line: &RequestLine, tells_heads: bool) -> Self {
        let mut reader = ResponseReader::new(line.method == "HEAD");
        if tells_heads {
            reader.keep_heads();
        }
        Self {
            reader,
            tells_heads,
            body: Vec::new(),
            body_bytes: 0,
            beyond: 0,
        }
    }

    /// Takes what was read, and leaves of it what belongs to the body, also if an error comes after that. `Some` when the
    /// answer is complete.
    pub(crate) fn take(&mut self, buffer: &mut Vec<u8>) -> Result<Option<Response>, BadResponse> {
        self.body.clear();
        let body = &mut self.body;
        let taken = self
            .reader
            .take(buffer, &mut |some| body.extend_from_slice(some));
        let came = buffer.len();
        mem::swap(buffer, &mut self.body);
        self.body_bytes += buffer.len() as u64;
        if self.tells_heads {
            tell(&self.reader.take_heads());
        }
        match taken? {
            Progress::More => Ok(None),
            Progress::Complete { used, response } => {
                self.beyond = came.saturating_sub(used);
                Ok(Some(response))
            }
        }
    }

    /// The server has closed its side: the end of an answer without a length, and an error in any other.
    pub(crate) fn end(&mut self) -> Result<Response, BadResponse> {
        self.reader.end()?.ok_or(BadResponse::CutHead)
    }
}

/// A head, line by line. The empty line that ends it is shown as one.
fn tell(heads: &[u8]) {
    for line in heads.split_inclusive(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line.trim_ascii_end());
        talk(format!("< {}", escaped(&line)).trim_end());
    }
}
