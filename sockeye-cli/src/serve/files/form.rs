//! Forms with files, as a browser sends them (RFC 7578).

use std::error::Error;
use std::future::ready;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyStream;
use hyper::body::{Frame, Incoming};
use multer::{Constraints, Field, Multipart, SizeLimit};

use crate::serve::files::Files;
use crate::serve::files::target::Target;
use crate::serve::files::upload::{
    CUT, ELSEWHERE, Refusal, Replace, TOO_LARGE, TOO_SLOW, Upload, from_elsewhere,
};
use crate::serve::web::body::Body;
use crate::serve::web::{BODY_TIME, HEAD_BYTES, said};

/// Files in one form.
const MOST_FILES: usize = 100;

impl Files {
    /// POST of a form: each of its files into this folder. What is there already stays.
    pub(crate) async fn take_form(
        &self,
        request: Request<Incoming>,
        target: &Target,
    ) -> Response<Body> {
        let back = request.uri().path().to_owned();
        match self.try_form(request, target).await {
            Ok(()) => {
                // To the listing, which a reload then shows without sending the form again.
                let mut response = said(StatusCode::SEE_OTHER, "taken\n");
                let back = format!("/{}", back.trim_start_matches('/'));
                let location = HeaderValue::from_str(&back);
                response
                    .headers_mut()
                    .insert(LOCATION, location.unwrap_or(HeaderValue::from_static("/")));
                response
            }
            Err(Refusal(status, text)) => said(status, text),
        }
    }

    async fn try_form(&self, request: Request<Incoming>, target: &Target) -> Result<(), Refusal> {
        if from_elsewhere(request.headers()) {
            return Err(ELSEWHERE);
        }
        let mut form = Form::of(request, self.most_bytes())?;
        let mut files = 0;
        while let Some(mut part) = form.next().await? {
            let Some(name) = part.file_name().map(file_name) else {
                // A text. Nobody wants it, but what follows it.
                while form.piece(&mut part).await?.is_some() {}
                continue;
            };
            let name = name.ok_or(Refusal(
                StatusCode::BAD_REQUEST,
                "a file has a name that it may not have\n",
            ))?;
            files += 1;
            if files > MOST_FILES {
                return Err(Refusal(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "they are too many\n",
                ));
            }
            let mut upload = Upload::begin(self.tree.folder(&target.path)?, self.most_bytes())?;
            while let Some(bytes) = form.piece(&mut part).await? {
                upload.write(&bytes).await?;
            }
            upload.save().await?;
            upload.place(&name, Replace::No)?;
        }
        Ok(())
    }
}

/// A form, part by part.
struct Form {
    parts: Multipart<'static>,
    unread: Arc<AtomicUsize>,
}

/// So much may come before the first part and between the data of two, where the heads are, as in the head of a request. multer
/// keeps it all until it has its end, and looks through it again with each piece that comes.
const MOST_UNREAD: usize = HEAD_BYTES;

#[derive(Debug, thiserror::Error)]
#[error("more than {MOST_UNREAD} bytes of a form came without a part or the end of its head")]
struct NoPart;

impl Form {
    /// The form in a request, with files of at most so many bytes.
    fn of(request: Request<Incoming>, most_bytes: u64) -> Result<Self, Refusal> {
        let kind = request.headers().get(CONTENT_TYPE);
        let kind = kind.and_then(|kind| kind.to_str().ok());
        let boundary = kind.and_then(|kind| multer::parse_boundary(kind).ok());
        let boundary = boundary.ok_or(Refusal(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "a form with files is needed\n",
        ))?;
        // A form has heads, too.
        let most = most_bytes.saturating_add(64 * 1024);
        let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(most));
        let unread = Arc::new(AtomicUsize::new(0));
        let came = Arc::clone(&unread);
        let body = BodyStream::new(request.into_body()).filter_map(move |frame| {
            let piece = match frame.map(Frame::into_data) {
                // One piece may hold heads and data, so those before it count.
                Ok(Ok(bytes)) => match came.fetch_add(bytes.len(), Ordering::Relaxed) {
                    0..=MOST_UNREAD => Some(Ok(bytes)),
                    _ => Some(Err(Box::from(NoPart))),
                },
                Ok(Err(_)) => None,
                Err(error) => Some(Err(Box::<dyn Error + Send + Sync>::from(error))),
            };
            ready(piece)
        });
        Ok(Self {
            parts: Multipart::with_constraints(body, boundary, limits),
            unread,
        })
    }

    /// The next part. The data of the one before must have been read to its end.
    async fn next(&mut self) -> Result<Option<Field<'static>>, Refusal> {
        let part = tokio::time::timeout(BODY_TIME, self.parts.next_field()).await;
        part.map_err(|_| TOO_SLOW)?.map_err(|error| of_form(&error))
    }

    /// What comes next of a part's data.
    async fn piece(&self, part: &mut Field<'static>) -> Result<Option<Bytes>, Refusal> {
        // hyper hands over one piece at a time, so two of data never count together.
        self.unread.store(0, Ordering::Relaxed);
        let piece = tokio::time::timeout(BODY_TIME, part.chunk()).await;
        self.unread.store(0, Ordering::Relaxed);
        piece
            .map_err(|_| TOO_SLOW)?
            .map_err(|error| of_form(&error))
    }
}

fn of_form(error: &multer::Error) -> Refusal {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => {
            TOO_LARGE
        }
        multer::Error::StreamReadFailed(error) if error.is::<NoPart>() => NO_PART,
        _ => CUT,
    }
}

const NO_PART: Refusal = Refusal(
    StatusCode::PAYLOAD_TOO_LARGE,
    "a part of the form, or its head, does not begin or end within 32 KiB\n",
);

/// The last part of what a form calls a file, if it can be one here.
fn file_name(given: &str) -> Option<PathBuf> {
    // Old browsers on Windows send the path.
    let name = given.rsplit(['/', '\\']).next()?;
    let is_usable =
        !name.is_empty() && !name.starts_with('.') && !name.contains('\0') && name.len() <= 255;
    is_usable.then(|| PathBuf::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_names_a_file_of_this_folder_only() {
        for (given, name) in [
            ("a.txt", Some("a.txt")),
            ("C:\\fakepath\\a.txt", Some("a.txt")),
            ("../../etc/passwd", Some("passwd")),
            ("a b é.txt", Some("a b é.txt")),
            ("", None),
            ("a/", None),
            ("..", None),
            (".env", None),
            ("a\0b", None),
        ] {
            assert_eq!(file_name(given), name.map(PathBuf::from), "{given}");
        }
    }
}
