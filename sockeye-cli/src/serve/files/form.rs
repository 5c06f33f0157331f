//! Forms with files, as a browser sends them (RFC 7578).

use std::path::PathBuf;

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyStream;
use hyper::body::Incoming;
use multer::{Constraints, Multipart, SizeLimit};

use crate::serve::files::Files;
use crate::serve::files::target::Target;
use crate::serve::files::upload::{
    CUT, ELSEWHERE, Refusal, Replace, TOO_LARGE, TOO_SLOW, Upload, from_elsewhere,
};
use crate::serve::web::body::Body;
use crate::serve::web::{BODY_TIME, said};

/// Names in one form.
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
        let kind = request
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok());
        let boundary = kind.and_then(|kind| multer::parse_boundary(kind).ok());
        let Some(boundary) = boundary else {
            return Err(Refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "a form with files is needed\n",
            ));
        };
        // A form has heads, too.
        let most = self.most_bytes().saturating_add(64 * 1024);
        let limits = Constraints::new().size_limit(SizeLimit::new().whole_stream(most));
        let body = BodyStream::new(request.into_body());
        let body = futures_util::StreamExt::filter_map(body, async |frame| match frame {
            Ok(frame) => frame.into_data().ok().map(Ok),
            Err(error) => Some(Err(error)),
        });
        let mut form = Multipart::with_constraints(Box::pin(body), boundary, limits);
        for _ in 0..MOST_FILES {
            let field = tokio::time::timeout(BODY_TIME, form.next_field()).await;
            let Some(mut field) = field
                .map_err(|_| TOO_SLOW)?
                .map_err(|error| of_form(&error))?
            else {
                return Ok(());
            };
            let Some(name) = field.file_name().map(file_name) else {
                continue;
            };
            let name = name.ok_or(Refusal(
                StatusCode::BAD_REQUEST,
                "a file has a name that it may not have\n",
            ))?;
            let mut upload = Upload::begin(self.tree.folder(&target.path)?, self.most_bytes())?;
            loop {
                let chunk = tokio::time::timeout(BODY_TIME, field.chunk()).await;
                match chunk
                    .map_err(|_| TOO_SLOW)?
                    .map_err(|error| of_form(&error))?
                {
                    Some(bytes) => upload.write(&bytes).await?,
                    None => break,
                }
            }
            upload.finish(&name, Replace::No).await?;
        }
        Err(Refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "they are too many\n",
        ))
    }
}

fn of_form(error: &multer::Error) -> Refusal {
    match error {
        multer::Error::StreamSizeExceeded { .. } | multer::Error::FieldSizeExceeded { .. } => {
            TOO_LARGE
        }
        _ => CUT,
    }
}

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
