//! Files that clients send: into a temporary file beside its place, which then takes it. Whoever reads meanwhile gets the old
//! file or the new one, whole.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use headers::{ContentLength, HeaderMapExt, IfNoneMatch};
use http::header::{CONTENT_RANGE, HOST, IF_MATCH, ORIGIN};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustix::fs::FileType;
use tokio::io::AsyncWriteExt;

use crate::serve::files::Files;
use crate::serve::files::precondition::Validators;
use crate::serve::files::target::Target;
use crate::serve::files::tree::{About, Folder};
use crate::serve::web::body::Body;
use crate::serve::web::{BODY_TIME, said};

/// Why an upload is not taken, with the status that says so.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) &'static str);

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self(StatusCode::CONFLICT, "there is no such folder\n"),
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self(StatusCode::FORBIDDEN, "it may not be written\n")
            }
            io::ErrorKind::AlreadyExists => Self(StatusCode::CONFLICT, "it is there already\n"),
            io::ErrorKind::IsADirectory => Self(StatusCode::CONFLICT, "there is a folder\n"),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self(StatusCode::INSUFFICIENT_STORAGE, "there is no room\n")
            }
            io::ErrorKind::InvalidFilename => {
                Self(StatusCode::BAD_REQUEST, "no file can have this name\n")
            }
            _ => Self(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be written\n"),
        }
    }
}

pub(super) const TOO_LARGE: Refusal = Refusal(StatusCode::PAYLOAD_TOO_LARGE, "it is too large\n");
pub(super) const TOO_SLOW: Refusal =
    Refusal(StatusCode::REQUEST_TIMEOUT, "it did not come in time\n");
pub(super) const CUT: Refusal = Refusal(StatusCode::BAD_REQUEST, "its end did not come\n");

impl Files {
    pub(super) fn most_bytes(&self) -> u64 {
        self.settings.upload_bytes.unwrap_or_default()
    }

    /// PUT: the file at this place, new (201) or in place of another (204).
    pub(crate) async fn put(&self, request: Request<Incoming>, target: &Target) -> Response<Body> {
        match self.try_put(request, target).await {
            Ok(status) => {
                let mut response = Response::new(Body::default());
                *response.status_mut() = status;
                response
            }
            Err(Refusal(status, text)) => said(status, text),
        }
    }

    async fn try_put(
        &self,
        request: Request<Incoming>,
        target: &Target,
    ) -> Result<StatusCode, Refusal> {
        if from_elsewhere(request.headers()) {
            return Err(ELSEWHERE);
        }
        // The rest of a file is not all of it (RFC 9110, section 14.5).
        if request.headers().contains_key(CONTENT_RANGE) {
            return Err(Refusal(
                StatusCode::BAD_REQUEST,
                "a part of a file is not taken\n",
            ));
        }
        let length = request.headers().typed_get::<ContentLength>();
        if length.is_some_and(|length| length.0 > self.most_bytes()) {
            return Err(TOO_LARGE);
        }
        let name = target.path.file_name().filter(|_| !target.is_folder);
        let Some(name) = name.map(Path::new) else {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        };
        let folder = self
            .tree
            .folder(target.path.parent().unwrap_or_else(|| Path::new("")))?;
        let before = folder.kind(name)?;
        if before == Some(FileType::Directory) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory).into());
        }
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        if !self.passes(target, before, headers) {
            return Err(CHANGED);
        }
        let mut upload = Upload::begin(folder, self.most_bytes())?;
        upload.take(body).await?;
        upload.save().await?;
        // It can have changed while this one came.
        let before = upload.folder.kind(name)?;
        if !self.passes(target, before, headers) {
            return Err(CHANGED);
        }
        if is_for_nothing_there(headers) {
            upload
                .place(name, Replace::No)
                .map_err(|error| match error.kind() {
                    io::ErrorKind::AlreadyExists => CHANGED,
                    _ => error.into(),
                })?;
        } else {
            upload.place(name, Replace::Yes)?;
        }
        Ok(match before {
            Some(_) => StatusCode::NO_CONTENT,
            None => StatusCode::CREATED,
        })
    }

    /// Whether a request wants to replace what is there: something of this kind, or nothing.
    fn passes(&self, target: &Target, there: Option<FileType>, headers: &HeaderMap) -> bool {
        if there.is_none() {
            return !headers.contains_key(IF_MATCH);
        }
        match self.tree.stat(&target.path) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Validators::of(&About::from(&stat)).passes_for_change(headers)
            }
            // A FIFO, or a link to nowhere: nobody can have been told its state, but it is there.
            _ => !headers.contains_key(IF_MATCH) && !is_for_nothing_there(headers),
        }
    }
}

/// Whether a request wants to replace nothing: `If-None-Match: *`.
fn is_for_nothing_there(headers: &HeaderMap) -> bool {
    headers.typed_get::<IfNoneMatch>() == Some(IfNoneMatch::any())
}

const CHANGED: Refusal = Refusal(StatusCode::PRECONDITION_FAILED, "it has changed\n");

pub(super) const ELSEWHERE: Refusal = Refusal(
    StatusCode::FORBIDDEN,
    "it comes from a page of another site\n",
);

/// A page of any site can have a browser send a form to us; the browser says so.
pub(super) fn from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let Some(origin) = text(ORIGIN) else {
        return false;
    };
    let host = origin.split_once("://").map(|(_, host)| host);
    host.is_none() || host != text(HOST)
}

/// A file on its way. Dropped before its end, it leaves nothing.
pub(super) struct Upload {
    folder: Folder,
    temporary: PathBuf,
    /// `None` once it has its name.
    file: Option<tokio::fs::File>,
    left: u64,
    /// Bytes that were written since the disk had all of it.
    unsaved: usize,
}

/// So much is written before the disk is waited for. If it were only at the end, the connection would be idle for as long as it
/// takes to save a large file, which can be longer than it may be; a slow disk of 1 MB/s saves this much in 8 s.
const UNSAVED_BYTES: usize = 8 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Replace {
    Yes,
    No,
}

impl Upload {
    pub(super) fn begin(folder: Folder, most: u64) -> Result<Self, Refusal> {
        // Hidden, so that nobody gets it before it is whole.
        let temporary = PathBuf::from(format!(".sockeye-upload-{:016x}", fastrand::u64(..)));
        let file = folder.create(&temporary)?;
        Ok(Self {
            folder,
            temporary,
            file: Some(tokio::fs::File::from_std(file)),
            left: most,
            unsaved: 0,
        })
    }

    pub(super) async fn write(&mut self, bytes: &Bytes) -> Result<(), Refusal> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or(TOO_LARGE)?;
        if let Some(file) = &mut self.file {
            file.write_all(bytes).await?;
            self.unsaved += bytes.len();
            if self.unsaved >= UNSAVED_BYTES {
                file.flush().await?;
                file.sync_data().await?;
                self.unsaved = 0;
            }
        }
        Ok(())
    }

    /// Takes all of a request's body.
    async fn take(&mut self, mut body: Incoming) -> Result<(), Refusal> {
        loop {
            let frame = tokio::time::timeout(BODY_TIME, body.frame()).await;
            match frame.map_err(|_| TOO_SLOW)? {
                None => return Ok(()),
                Some(Err(_)) => return Err(CUT),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.write(&bytes).await?;
                    }
                }
            }
        }
    }

    /// Waits until the disk has it.
    pub(super) async fn save(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            // What it could not write it says only now.
            file.flush().await?;
            file.sync_all().await?;
        }
        Ok(())
    }

    /// Gives it its name, when it is saved.
    pub(super) fn place(mut self, name: &Path, replace: Replace) -> io::Result<()> {
        match replace {
            Replace::Yes => self.folder.rename(&self.temporary, name)?,
            Replace::No => self.folder.rename_to_new(&self.temporary, name)?,
        }
        self.file = None;
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if self.file.is_some() {
            // If it cannot be removed it stays, hidden.
            let _ = self.folder.remove(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_may_not_send_files() {
        let from = |origin: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("127.0.0.1:8000"));
            if let Some(origin) = origin {
                headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("a value"));
            }
            from_elsewhere(&headers)
        };
        assert!(!from(None));
        assert!(!from(Some("http://127.0.0.1:8000")));
        for origin in ["http://127.0.0.1:8001", "https://evil.example", "null", ""] {
            assert!(from(Some(origin)), "{origin}");
        }
    }
}
