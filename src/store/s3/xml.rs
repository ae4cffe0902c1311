//! The XML that S3 speaks: one walk over a document, and text made safe for one.

use quick_xml::Reader;
use quick_xml::events::{BytesRef, Event};

/// Elements within elements; S3 needs four.
const DEPTH_MAX: usize = 16;

/// Why a document makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("the reply is not the XML that was expected: {0}")]
pub(in crate::store) struct Malformed(pub(in crate::store) String);

/// Calls `closed(path, text)` at the end of every element but the root, with the path below the root (`Contents/Key`)
/// and the text since the last tag. Returns the root's name. A document that is cut off, badly nested, too deep or
/// holds a document type is malformed.
pub(in crate::store) fn walk(
    xml: &[u8],
    mut closed: impl FnMut(&str, &str) -> Result<(), Malformed>,
) -> Result<String, Malformed> {
    let xml = std::str::from_utf8(xml).map_err(|_| Malformed("it is not UTF-8".into()))?;
    let mut reader = Reader::from_str(xml);
    let mut root = None;
    let mut path = String::with_capacity(64);
    let mut depth = 0;
    let mut text = String::new();
    let malformed = |error: quick_xml::Error| Malformed(error.to_string());
    loop {
        match reader.read_event().map_err(malformed)? {
            Event::Start(tag) => {
                open(&mut root, &mut path, depth, tag.local_name().as_ref())?;
                depth += 1;
                text.clear();
            }
            Event::Empty(tag) => {
                open(&mut root, &mut path, depth, tag.local_name().as_ref())?;
                if depth > 0 {
                    closed(&path, "")?;
                    leave(&mut path);
                }
                text.clear();
            }
            Event::End(_) => {
                depth -= 1;
                if depth > 0 {
                    closed(&path, &text)?;
                    leave(&mut path);
                }
                text.clear();
            }
            Event::Text(part) => text.push_str(&part.xml10_content()),
            Event::CData(part) => text.push_str(&part.xml10_content()),
            Event::GeneralRef(entity) => text.push(resolve(&entity)?),
            Event::DocType(_) => return Err(Malformed("it has a document type".into())),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof if depth > 0 => return Err(Malformed("it is cut off".into())),
            Event::Eof => return root.ok_or_else(|| Malformed("it is empty".into())),
        }
    }
}

fn open(root: &mut Option<String>, path: &mut String, depth: usize, name: &str) -> Result<(), Malformed> {
    if depth >= DEPTH_MAX {
        return Err(Malformed("it is nested too deeply".into()));
    }
    // A name with a slash would be taken for two levels, and leaving it for leaving one.
    if name.contains('/') {
        return Err(Malformed("an element's name has a slash".into()));
    }
    if depth == 0 {
        if root.is_some() {
            return Err(Malformed("it has two roots".into()));
        }
        *root = Some(name.to_owned());
    } else {
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(name);
    }
    Ok(())
}

fn leave(path: &mut String) {
    path.truncate(path.rfind('/').unwrap_or(0));
}

fn resolve(entity: &BytesRef<'_>) -> Result<char, Malformed> {
    let unknown = || Malformed("it has an unknown entity".into());
    if let Some(c) = entity.resolve_char_ref().map_err(|_| unknown())? {
        return Ok(c);
    }
    match entity.xml10_content().as_ref() {
        "amp" => Ok('&'),
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(unknown()),
    }
}

/// Appends text to a document.
pub(super) fn push_text(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
}

/// True when a document can hold the text and every reader gives it back unchanged: XML 1.0 has no place for most
/// control characters, and line ends are normalised.
pub(super) fn is_safe(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{fffe}' | '\u{ffff}'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(xml: &str) -> Result<Vec<(String, String)>, Malformed> {
        let mut all = Vec::new();
        walk(xml.as_bytes(), |path, text| {
            all.push((path.to_owned(), text.to_owned()));
            Ok(())
        })?;
        Ok(all)
    }

    #[test]
    fn a_slash_in_a_name_is_no_level() {
        assert!(leaves("<a><b/c>1</b/c><d>2</d></a>").is_err());
    }

    #[test]
    fn paths_and_text() {
        let xml =
            "<?xml version=\"1.0\"?>\n<R xmlns=\"u\"><A>x&amp;y&#x41;<![CDATA[<z>]]></A><B><C> s </C><D/></B></R>";
        let expected = [("A", "x&yA<z>"), ("B/C", " s "), ("B/D", ""), ("B", "")];
        assert_eq!(leaves(xml).unwrap(), expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
    }

    #[test]
    fn hostile_documents_are_refused() {
        let deep = "<a>".repeat(1_000_000);
        for xml in [
            "",
            "plain text",
            "<a><b>",
            "<a><b></a></b>",
            "<a/><b/>",
            "<a><k>&unknown;</k></a>",
            "<a><k>&#xD800;</k></a>",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a><k>&x;</k></a>",
            deep.as_str(),
        ] {
            assert!(leaves(xml).is_err(), "{}", &xml[..xml.len().min(40)]);
        }
        assert!(walk(b"<a>\xff</a>", |_, _| Ok(())).is_err());
    }

    proptest! {
        #[test]
        fn no_document_panics(xml in "[<>/&;#xa!\\[\\]\"= ?-]{0,60}") {
            let _ = leaves(&xml);
        }

        #[test]
        fn safe_text_comes_back(text in any::<String>()) {
            prop_assume!(is_safe(&text));
            let mut xml = String::from("<r><k>");
            push_text(&mut xml, &text);
            xml.push_str("</k></r>");
            prop_assert_eq!(leaves(&xml).unwrap(), vec![("k".to_owned(), text)]);
        }
    }
}
