//! The readers of a server's replies, for fuzzing; only built then.

use super::error::Failure;
use super::multipart::{Outcome, UploadsPage};
use super::object::first_failed;
use super::page::PageParser;
use super::pieces::PartsPage;
use super::xml::{self, push_text};
use crate::error::Kind;
use crate::key::Key;
use http::StatusCode;

/// Puts any bytes before every reader of replies, and text that is put into a document before the walk.
pub fn read_reply(body: &[u8]) {
    for versions in [false, true] {
        let mut parser = PageParser::new(versions);
        if xml::walk(body, |path, text| parser.closed(path, text)).is_ok()
            && let Err(error) = parser.page(|key| Ok(Key::copy_from(key)))
        {
            assert_eq!(error.kind(), Kind::BadListing);
        }
    }
    let _ = UploadsPage::read(body);
    let _ = Outcome::read(body);
    let _ = PartsPage::read(body);
    let _ = first_failed(body, &["NoSuchVersion"]);
    let refused = Failure::refused(StatusCode::FORBIDDEN, body);
    assert!(refused.code().chars().count() <= body.len());
    if let Ok(text) = std::str::from_utf8(body)
        && xml::is_safe(text)
    {
        let mut document = String::from("<r><leaf>");
        push_text(&mut document, text);
        document.push_str("</leaf></r>");
        let mut leaves = Vec::new();
        let root = xml::walk(document.as_bytes(), |path, text| {
            leaves.push((path.to_owned(), text.to_owned()));
            Ok(())
        });
        assert_eq!(root.expect("what is written is sound"), "r");
        assert_eq!(leaves, [("leaf".to_owned(), text.to_owned())]);
    }
}
