//! What is in a folder: read, sorted, and shown as a page or as JSON.

use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use rustix::fs::{AtFlags, Dir, FileType, statat};
use serde::Serialize;

use crate::exit::markup as safe;
use crate::serve::files::tree::{About, Tree};

/// More are not listed, and the listing says so.
const MOST_ENTRIES: usize = 10_000;

/// What a segment of a path may have as it is (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

const STYLE: &str = include_str!("listing.css");

/// One file or folder.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    name: OsString,
    is_folder: bool,
    about: About,
}

#[derive(Debug)]
pub(crate) struct Listing {
    entries: Vec<Entry>,
    /// There are more.
    is_cut: bool,
}

/// How it is sorted, as a query says: `?sort=size&order=desc`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Order {
    by: Column,
    descending: bool,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Column {
    #[default]
    Name,
    Size,
    Modified,
}

impl Column {
    const ALL: [(Self, &'static str, &'static str); 3] = [
        (Self::Name, "name", "Name"),
        (Self::Size, "size", "Size"),
        (Self::Modified, "modified", "Modified"),
    ];
}

impl Order {
    pub(crate) fn of(query: &str) -> Self {
        let mut order = Self::default();
        for field in query.split('&') {
            match field.split_once('=') {
                Some(("sort", name)) => {
                    let known = Column::ALL.iter().find(|(_, known, _)| *known == name);
                    order.by = known.map_or(order.by, |(column, ..)| *column);
                }
                Some(("order", direction)) => order.descending = direction == "desc",
                _ => {}
            }
        }
        order
    }
}

/// Whether an `Accept` (RFC 9110, section 12.5.1) asks for JSON before a page.
pub(crate) fn wants_json(accept: &str) -> bool {
    let json = wanted(accept, ["application/json", "application/*"]);
    json.0 > 0.0 && json > wanted(accept, ["text/html", "text/*"])
}

/// How much a type is wanted, and whether it is named itself; `names` are those that match it, and `*/*` does, too.
fn wanted(accept: &str, names: [&str; 2]) -> (f32, usize) {
    let ranges = accept.split(',').filter_map(|item| {
        let mut words = item.split(';').map(str::trim);
        let range = words.next()?.to_ascii_lowercase();
        let names = names.into_iter().chain(["*/*"]).rev();
        let specific = names.clone().position(|name| name == range)?;
        let weight = words.find_map(|word| word.strip_prefix(['q', 'Q'])?.strip_prefix('='));
        let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
        Some((specific, weight))
    });
    let most_specific = ranges.max_by_key(|(specific, _)| *specific);
    most_specific.map_or((0.0, 0), |(specific, weight)| (weight, specific))
}

impl Listing {
    /// Reads a folder, which is at `path` in the tree; hidden files are left out, and what is no file and no folder. A link is
    /// what it leads to, if that is in the tree. It waits for the disk.
    pub(crate) fn read(tree: &Tree, path: &Path, folder: OwnedFd) -> io::Result<Self> {
        let mut listing = Self {
            entries: Vec::new(),
            is_cut: false,
        };
        let mut names = Dir::read_from(&folder)?;
        while let Some(entry) = names.read() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".") {
                continue;
            }
            // It may be gone by now.
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let Ok(mut stat) = statat(&folder, entry.file_name(), flags) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                let Ok(target) = tree.stat(&path.join(OsStr::from_bytes(name))) else {
                    continue;
                };
                stat = target;
            }
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(kind, FileType::RegularFile | FileType::Directory) {
                continue;
            }
            if listing.entries.len() == MOST_ENTRIES {
                listing.is_cut = true;
                break;
            }
            listing.entries.push(Entry {
                name: OsString::from_vec(name.to_vec()),
                is_folder: kind == FileType::Directory,
                about: About::from(&stat),
            });
        }
        Ok(listing)
    }

    /// Folders first; what is equal, by name.
    pub(crate) fn sort(&mut self, order: Order) {
        self.entries.sort_by(|a, b| {
            let by_column = match order.by {
                Column::Name => a.name.cmp(&b.name),
                Column::Size => a.about.bytes.cmp(&b.about.bytes),
                Column::Modified => a.about.modified.cmp(&b.about.modified),
            };
            let by_column = if order.descending {
                by_column.reverse()
            } else {
                by_column
            };
            let folders_first = b.is_folder.cmp(&a.is_folder);
            folders_first
                .then(by_column)
                .then_with(|| a.name.cmp(&b.name))
        });
    }

    /// One object, with the entries in their order.
    pub(crate) fn json(&self, path: &str) -> String {
        #[derive(Serialize)]
        struct Line {
            name: String,
            kind: &'static str,
            /// Of a file.
            size_bytes: Option<u64>,
            modified: String,
            href: String,
        }
        #[derive(Serialize)]
        struct Folder<'a> {
            path: &'a str,
            entries: Vec<Line>,
            is_cut: bool,
        }
        let entries = self.entries.iter().map(|entry| Line {
            name: entry.name.to_string_lossy().into_owned(),
            kind: if entry.is_folder { "folder" } else { "file" },
            size_bytes: (!entry.is_folder).then_some(entry.about.bytes),
            modified: time(entry.about.modified),
            href: entry.href(),
        });
        let folder = Folder {
            path,
            entries: entries.collect(),
            is_cut: self.is_cut,
        };
        let json = serde_json::to_string(&folder);
        json.unwrap_or_else(|error| unreachable!("only numbers and text: {error}")) + "\n"
    }

    /// A page that needs nothing but itself. `path` is what is shown above it; `uploads` adds a form.
    pub(crate) fn page(&self, path: &str, order: Order, uploads: bool) -> String {
        let title = safe(path);
        let mut page = format!(
            "<!doctype html><html lang='en'><head><meta charset='utf-8'>\
             <meta name='viewport' content='width=device-width'><title>{title}</title><style>{STYLE}</style></head>\
             <body><h1>{title}</h1>"
        );
        if uploads {
            page.push_str(
                "<form method='post' enctype='multipart/form-data'><input type='file' name='file' multiple required \
                 aria-label='Files'> <button>Upload</button></form>",
            );
        }
        page.push_str("<table><thead><tr>");
        for (column, field, name) in Column::ALL {
            page.push_str(&heading(column, field, name, order));
        }
        page.push_str("</tr></thead><tbody>");
        if path != "/" {
            page.push_str("<tr><td><a href='../'>../</a></td><td></td><td></td></tr>");
        }
        for entry in &self.entries {
            page.push_str(&entry.row());
        }
        page.push_str("</tbody></table>");
        if self.is_cut {
            let _ = write!(page, "<p>There are more than these {MOST_ENTRIES}.</p>");
        } else if self.entries.is_empty() {
            page.push_str("<p>Nothing is here.</p>");
        }
        page.push_str("</body></html>\n");
        page
    }
}

/// A column's name, which sorts by it; again, the other way round.
fn heading(column: Column, field: &str, name: &str, order: Order) -> String {
    let (mut next, mut sorted) = ("asc", "");
    if column == order.by {
        (next, sorted) = match order.descending {
            false => ("desc", " aria-sort='ascending'"),
            true => ("asc", " aria-sort='descending'"),
        };
    }
    format!("<th{sorted}><a href='?sort={field}&amp;order={next}'>{name}</a></th>")
}

impl Entry {
    fn href(&self) -> String {
        let slash = if self.is_folder { "/" } else { "" };
        format!("{}{slash}", percent_encode(self.name.as_bytes(), SEGMENT))
    }

    fn row(&self) -> String {
        let name = safe(&self.name.to_string_lossy());
        let (slash, size) = match self.is_folder {
            true => ("/", String::new()),
            false => ("", size(self.about.bytes)),
        };
        format!(
            "<tr><td><a href='./{}'>{name}{slash}</a></td><td>{size}</td><td>{}</td></tr>\n",
            self.href(),
            time(self.about.modified)
        )
    }
}

/// `12 B`, `3.4 MiB`.
fn size(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.95 {
            break;
        }
        (value, unit) = (value / 1024.0, next);
    }
    match unit {
        "B" => format!("{bytes} B"),
        unit => format!("{value:.1} {unit}"),
    }
}

/// To the second, in UTC, as it sorts. Before 1970 it is 1970.
fn time(time: SystemTime) -> String {
    // Its formatter knows no year above 9999.
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    let since = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let shown = SystemTime::UNIX_EPOCH + since.min(LAST);
    humantime::format_rfc3339_seconds(shown).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_who_wants_it_more_than_a_page() {
        for accept in [
            "application/json",
            "APPLICATION/JSON",
            "application/json, text/plain, */*",
            "text/html;q=0.5, application/json",
            "text/html;level=1;q=0, application/*;q=0.1",
        ] {
            assert!(wants_json(accept), "{accept}");
        }
        for accept in [
            "",
            "*/*",
            "text/html",
            "application/json;q=0",
            "text/html, application/json;q=0.5",
            "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
            "application/json;q=x",
        ] {
            assert!(!wants_json(accept), "{accept}");
        }
    }

    fn entry(name: &str, is_folder: bool, bytes: u64, second: u64) -> Entry {
        Entry {
            name: name.into(),
            is_folder,
            about: About {
                bytes,
                modified: SystemTime::UNIX_EPOCH + Duration::from_secs(second),
            },
        }
    }

    fn listing() -> Listing {
        Listing {
            entries: vec![
                entry("b", false, 10, 3),
                entry("z", true, 4096, 1),
                entry("a", false, 30, 2),
                entry("c", false, 10, 1),
            ],
            is_cut: false,
        }
    }

    fn sorted(query: &str) -> Vec<String> {
        let mut listing = listing();
        listing.sort(Order::of(query));
        let names = listing
            .entries
            .iter()
            .map(|entry| entry.name.to_string_lossy().into_owned());
        names.collect()
    }

    #[test]
    fn a_query_sorts_and_folders_stay_first() {
        assert_eq!(sorted(""), ["z", "a", "b", "c"]);
        assert_eq!(sorted("sort=name&order=desc"), ["z", "c", "b", "a"]);
        assert_eq!(sorted("sort=size"), ["z", "b", "c", "a"]);
        assert_eq!(sorted("order=desc&sort=size"), ["z", "a", "b", "c"]);
        assert_eq!(sorted("sort=modified&order=desc"), ["z", "b", "a", "c"]);
        assert_eq!(sorted("sort=colour&x"), ["z", "a", "b", "c"]);
    }

    #[test]
    fn a_heading_sorts_the_other_way_the_second_time() {
        let page = listing().page("/", Order::of("sort=size&order=asc"), false);
        assert!(page.contains("<th aria-sort='ascending'><a href='?sort=size&amp;order=desc'>"));
        assert!(page.contains("<th><a href='?sort=name&amp;order=asc'>"));
    }

    #[test]
    fn a_hostile_name_is_text_and_can_still_be_asked_for() {
        let name = "javascript:alert(1)'><script>\u{1b}[2J \u{202e}&?#%";
        let listing = Listing {
            entries: vec![entry(name, false, 1, 1)],
            is_cut: false,
        };
        let page = listing.page("/<b>/", Order::default(), false);
        assert!(!page.contains("<script") && !page.contains("<b>") && !page.contains('\u{1b}'));
        assert!(page.contains(
            "href='./javascript%3Aalert%281%29%27%3E%3Cscript%3E%1B%5B2J%20%E2%80%AE%26%3F%23%25'"
        ));
        let json: serde_json::Value = serde_json::from_str(&listing.json("/")).expect("JSON");
        assert_eq!(json["entries"][0]["name"], name);
    }

    #[test]
    fn sizes_and_times_are_readable() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_048_575, "1.0 MiB"),
            (5_368_709_120, "5.0 GiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
        assert_eq!(time(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00Z");
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 50);
        assert_eq!(time(far), "9999-12-31T23:59:59Z");
    }
}
