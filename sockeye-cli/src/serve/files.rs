//! `sockeye serve files DIR`: a folder over HTTP.

mod encoding;
mod form;
mod listing;
mod precondition;
mod range;
mod target;
mod tree;
mod upload;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use headers::{HeaderMapExt, LastModified};
use http::header::{
    ACCEPT, ACCEPT_ENCODING, ACCEPT_RANGES, ALLOW, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::serve::files::listing::{Listing, Order, wants_json};
use crate::serve::files::precondition::{Validators, Verdict};
use crate::serve::files::range::Parts;
use crate::serve::files::target::{Target, Unusable};
use crate::serve::files::tree::{About, Found, Tree};
use crate::serve::web::body::{Body, Stretch};
use crate::serve::web::visit::Visit;
use crate::serve::web::{Answer, HangUp, said, whole};

/// What a folder shows, and takes.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) folder: PathBuf,
    pub(crate) index: bool,
    pub(crate) spa: Option<PathBuf>,
    /// The largest upload, if any is taken.
    pub(crate) upload_bytes: Option<u64>,
}

/// Answers requests from a folder.
pub(crate) struct Files {
    tree: Arc<Tree>,
    settings: Settings,
}

/// Files up to this size are read and sent with their head in one call; above, the kernel sends them.
const SMALL_BYTES: u64 = 32 * 1024;

/// The page of a folder.
const INDEX: &str = "index.html";

impl Files {
    /// # Errors
    ///
    /// Those of [`Tree::open`]; `Other` if the file of `--spa` cannot be had.
    pub(crate) fn new(settings: Settings) -> io::Result<Self> {
        let tree = Arc::new(Tree::open(&settings.folder)?);
        if let Some(spa) = &settings.spa {
            let text = match tree.file(spa) {
                Ok(Some(_)) => None,
                Ok(None) => Some(format!("there is no file {} in it", spa.display())),
                Err(error) => Some(format!("{} in it: {error}", spa.display())),
            };
            if let Some(text) = text {
                return Err(io::Error::other(text));
            }
        }
        Ok(Self { tree, settings })
    }

    fn allowed(&self) -> HeaderValue {
        HeaderValue::from_static(match self.settings.upload_bytes {
            Some(_) => "GET, HEAD, OPTIONS, POST, PUT",
            None => "GET, HEAD, OPTIONS",
        })
    }

    async fn get(
        &self,
        request: &Request<Incoming>,
        target: &Target,
        visit: &Arc<Visit>,
    ) -> Response<Body> {
        let asked = Asked::of(request, visit);
        match self.tree.find(&target.path) {
            Ok(Found::File(..)) if target.is_folder => self.missing(&asked),
            Ok(Found::File(file, about)) => self.form_of(&asked, &target.path, file, about),
            Ok(Found::Folder(_)) if !target.is_folder => to_folder(request),
            Ok(Found::Folder(folder)) => {
                let index = target.path.join(INDEX);
                match self.tree.file(&index) {
                    Ok(Some((file, about))) => self.form_of(&asked, &index, file, about),
                    Ok(None) if self.settings.index => self.list(request, target, folder).await,
                    Ok(None) => self.missing(&asked),
                    Err(error) => refused(&error),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.missing(&asked),
            Err(error) => refused(&error),
        }
    }

    /// What there is instead of something that is not there.
    fn missing(&self, asked: &Asked<'_>) -> Response<Body> {
        let spa = self.settings.spa.as_ref();
        match spa.map(|path| (path, self.tree.file(path))) {
            Some((path, Ok(Some((file, about))))) => self.form_of(asked, path, file, about),
            Some((_, Err(error))) => refused(&error),
            _ => said(StatusCode::NOT_FOUND, "not found\n"),
        }
    }

    /// The file, or one that lies beside it and is the same in less bytes.
    fn form_of(&self, asked: &Asked<'_>, path: &Path, file: File, about: About) -> Response<Body> {
        let kind = kind(path);
        let Some(accepted) = asked.headers.get(ACCEPT_ENCODING) else {
            return send(asked, file, about, &kind);
        };
        let encodings = encoding::accepted(accepted.to_str().unwrap_or_default());
        let compressed = encodings.into_iter().find_map(|encoding| {
            let mut beside = path.as_os_str().to_owned();
            beside.push(".");
            beside.push(encoding.extension);
            // Whatever is wrong with it, the one that was asked for can be had.
            Some((encoding, self.tree.file(Path::new(&beside)).ok()??))
        });
        let mut response = match compressed {
            Some((encoding, (file, about))) => {
                let mut response = send(asked, file, about, &kind);
                let status = response.status();
                // Else the body is a text of ours.
                if status.is_success() || status == StatusCode::NOT_MODIFIED {
                    let name = HeaderValue::from_static(encoding.name);
                    response.headers_mut().insert(CONTENT_ENCODING, name);
                }
                response
            }
            None => send(asked, file, about, &kind),
        };
        // Caches ask for it: another client may take another form.
        let vary = HeaderValue::from_static("accept-encoding");
        response.headers_mut().insert(VARY, vary);
        response
    }

    async fn list(
        &self,
        request: &Request<Incoming>,
        target: &Target,
        folder: OwnedFd,
    ) -> Response<Body> {
        let (tree, place) = (Arc::clone(&self.tree), target.path.clone());
        // It waits for the disk, once for each file.
        let read = tokio::task::spawn_blocking(move || Listing::read(&tree, &place, folder));
        let read = read.await;
        let mut listing = match read.map_err(io::Error::other).and_then(|read| read) {
            Ok(listing) => listing,
            Err(error) => return refused(&error),
        };
        let order = Order::of(request.uri().query().unwrap_or_default());
        listing.sort(order);
        let path = percent_encoding::percent_decode_str(request.uri().path());
        let path = path.decode_utf8_lossy();
        let accepts = request
            .headers()
            .get(ACCEPT)
            .and_then(|header| header.to_str().ok());
        let mut response = if accepts.is_some_and(wants_json) {
            whole(
                StatusCode::OK,
                "application/json",
                listing.json(&path).into_bytes(),
            )
        } else {
            let page = listing.page(&path, order, self.settings.upload_bytes.is_some());
            whole(
                StatusCode::OK,
                "text/html; charset=utf-8",
                page.into_bytes(),
            )
        };
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept"));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
            ),
        );
        response
    }
}

impl Answer for Files {
    async fn answer(
        &self,
        request: Request<Incoming>,
        visit: &Arc<Visit>,
    ) -> Result<Response<Body>, HangUp> {
        let is_head = request.method() == Method::HEAD;
        let target = Target::of(request.uri().path());
        let mut response = match (request.method(), target) {
            (&Method::OPTIONS, _) => {
                let mut response = Response::new(Body::default());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response.headers_mut().insert(ALLOW, self.allowed());
                response
            }
            (_, Err(Unusable::Bad)) => said(StatusCode::BAD_REQUEST, "no path of a file\n"),
            (&Method::GET | &Method::HEAD, Err(Unusable::Hidden)) => {
                self.missing(&Asked::of(&request, visit))
            }
            (_, Err(Unusable::Hidden)) => {
                said(StatusCode::FORBIDDEN, "hidden files are not served\n")
            }
            (&Method::GET | &Method::HEAD, Ok(target)) => self.get(&request, &target, visit).await,
            (&Method::PUT, Ok(target)) if self.settings.upload_bytes.is_some() => {
                self.put(request, &target).await
            }
            (&Method::POST, Ok(target)) if self.settings.upload_bytes.is_some() => {
                self.take_form(request, &target).await
            }
            (method, Ok(_)) if !KNOWN.contains(method) => {
                said(StatusCode::NOT_IMPLEMENTED, "no such method\n")
            }
            _ => {
                let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "not allowed\n");
                response.headers_mut().insert(ALLOW, self.allowed());
                response
            }
        };
        // Browsers must not take a text for a script.
        let nosniff = HeaderValue::from_static("nosniff");
        response
            .headers_mut()
            .insert(X_CONTENT_TYPE_OPTIONS, nosniff);
        if is_head {
            *response.body_mut() = Body::default();
        }
        Ok(response)
    }
}

/// Methods that are known, and not allowed where they are not served (RFC 9110, section 9; RFC 5789).
const KNOWN: [Method; 8] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
];

/// What of a request decides how a file is sent.
struct Asked<'a> {
    headers: &'a HeaderMap,
    is_get: bool,
    visit: &'a Arc<Visit>,
}

impl<'a> Asked<'a> {
    fn of(request: &'a Request<Incoming>, visit: &'a Arc<Visit>) -> Self {
        Self {
            headers: request.headers(),
            is_get: request.method() == Method::GET,
            visit,
        }
    }
}

/// By its name. What is text is taken to be UTF-8.
fn kind(path: &Path) -> HeaderValue {
    let kind = mime_guess::from_path(path).first_raw();
    let kind = kind.unwrap_or("application/octet-stream");
    let is_text =
        kind.starts_with("text/") || matches!(kind, "application/javascript" | "application/json");
    match is_text {
        true => HeaderValue::from_str(&format!("{kind}; charset=utf-8")),
        false => HeaderValue::from_str(kind),
    }
    .unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// A file, or of it what is wanted.
fn send(asked: &Asked<'_>, file: File, about: About, kind: &HeaderValue) -> Response<Body> {
    let validators = Validators::of(&about);
    let verdict = validators.verdict(asked.headers, about.bytes, asked.is_get);
    let mut response = match verdict {
        Verdict::Failed => said(StatusCode::PRECONDITION_FAILED, "it has changed\n"),
        Verdict::NotModified => {
            let mut response = Response::new(Body::default());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        }
        Verdict::Send(Parts::None) => {
            let mut response = said(StatusCode::RANGE_NOT_SATISFIABLE, "no such range\n");
            let range = format!("bytes */{}", about.bytes);
            response.headers_mut().insert(CONTENT_RANGE, value(&range));
            response
        }
        Verdict::Send(parts) => match body(asked, file, about.bytes, parts, kind) {
            Ok(response) => response,
            Err(error) => return refused(&error),
        },
    };
    let headers = response.headers_mut();
    headers.typed_insert(validators.etag);
    if let Some(modified) = validators.modified {
        headers.typed_insert(LastModified::from(modified));
    }
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    response
}

/// The answer with its body: 200, or 206 for one range or several.
fn body(
    asked: &Asked<'_>,
    file: File,
    length: u64,
    parts: Parts,
    kind: &HeaderValue,
) -> io::Result<Response<Body>> {
    let mut response = Response::new(Body::default());
    let source = Source {
        file: Arc::new(file),
        visit: asked.visit,
    };
    let mut kind = kind.clone();
    let mut body = Body::default();
    match parts {
        Parts::Some(ranges) => {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            if let [range] = &ranges[..] {
                let content = content_range(range, length);
                response
                    .headers_mut()
                    .insert(CONTENT_RANGE, value(&content));
                source.add(&mut body, range.clone())?;
            } else {
                let boundary = format!("{:016x}", fastrand::u64(..));
                for range in &ranges {
                    let head = format!(
                        "\r\n--{boundary}\r\nContent-Type: {}\r\nContent-Range: {}\r\n\r\n",
                        kind.to_str().unwrap_or_default(),
                        content_range(range, length)
                    );
                    body.push(Bytes::from(head));
                    source.add(&mut body, range.clone())?;
                }
                body.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
                kind = value(&format!("multipart/byteranges; boundary={boundary}"));
            }
        }
        Parts::All | Parts::None => source.add(&mut body, 0..length)?,
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(
        CONTENT_LENGTH,
        HeaderValue::from(body.length().unwrap_or(length)),
    );
    *response.body_mut() = body;
    Ok(response)
}

struct Source<'a> {
    file: Arc<File>,
    visit: &'a Arc<Visit>,
}

impl Source<'_> {
    fn add(&self, body: &mut Body, range: Range<u64>) -> io::Result<()> {
        let length = range.end - range.start;
        if length > SMALL_BYTES {
            body.push_file(Stretch {
                file: Arc::clone(&self.file),
                offset: range.start,
                length,
                visit: self.visit.sends_files.then(|| Arc::clone(self.visit)),
            });
            return Ok(());
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, range.start)?;
        body.push(bytes.into());
        Ok(())
    }
}

fn content_range(range: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", range.start, range.end - 1)
}

/// Of text that we have made.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

/// A folder's address ends in a slash, or the links on its page lead elsewhere.
fn to_folder(request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    // "//name" would be another host.
    let mut location = format!("/{}/", path.trim_start_matches('/'));
    if let Some(query) = request.uri().query() {
        location = format!("{location}?{query}");
    }
    let mut response = said(StatusCode::MOVED_PERMANENTLY, "it is a folder\n");
    response.headers_mut().insert(LOCATION, value(&location));
    response
}

/// What a client is told of an error of ours.
fn refused(error: &io::Error) -> Response<Body> {
    use rustix::io::Errno;

    match Errno::from_io_error(error) {
        Some(Errno::ACCESS | Errno::PERM) => said(StatusCode::FORBIDDEN, "it may not be read\n"),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => {
            let mut response = said(StatusCode::SERVICE_UNAVAILABLE, "too much to do\n");
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from_static("1"));
            response
        }
        _ => said(StatusCode::INTERNAL_SERVER_ERROR, "it cannot be read\n"),
    }
}
