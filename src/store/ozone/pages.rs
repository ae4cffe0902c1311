//! Pages of names as the Ozone Manager cuts them, in byte order and without holes.
//!
//! Ozone 2.2.0 reads names in byte order and sorts a page by UTF-16 code units before it cuts it off. The two orders agree
//! but where one name has a character above U+FFFF and another has one from U+E000 up to U+FFFF in the same place: a
//! full-width bracket beside an emoji. There a page may leave out a name that comes, in bytes, before one that it has.

use super::om::KeyInfo;

/// The first byte of a character above U+FFFF in UTF-8, and what is greater is no first byte at all.
const FOUR_BYTES: u8 = 0xf0;

/// What can be told of a page that was asked for with `after` and may not be the last: its names in byte order, up to the
/// last one that nothing before it can be missing of. Go on after that one; what is behind it comes again.
///
/// Where all of them have characters above U+FFFF in places that are new since `after`, none is sure and all are given:
/// nothing tells whether a name is hidden behind them.
pub(super) fn settled(mut page: Vec<KeyInfo>, after: Option<&str>) -> Vec<KeyInfo> {
    let sure = page.iter().filter(|info| is_sure(&info.name, after)).map(|info| &info.name).max();
    if let Some(last) = sure.or(page.last().map(|info| &info.name)).cloned() {
        page.retain(|info| info.name <= last);
    }
    in_order(page, after)
}

/// The names of a last page in byte order.
pub(super) fn in_order(mut page: Vec<KeyInfo>, after: Option<&str>) -> Vec<KeyInfo> {
    page.retain(|info| after.is_none_or(|after| info.name.as_str() > after));
    page.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    page.dedup_by(|a, b| a.name == b.name);
    page
}

/// True when nothing that the page leaves out can come before this name of it.
pub(super) fn is_sure(name: &str, after: Option<&str>) -> bool {
    let after = after.unwrap_or_default().as_bytes();
    // What differs from the start in a place has been listed before.
    let known = name.bytes().zip(after).take_while(|(a, b)| a == *b).count();
    name.as_bytes()[known..].iter().all(|&byte| byte < FOUR_BYTES)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::om::KeyKind;
    use super::*;

    fn info(name: &str) -> KeyInfo {
        KeyInfo {
            name: name.into(),
            size: 0,
            mtime_ms: 0,
            kind: KeyKind::File,
            metadata: Vec::new(),
            etag: None,
            tags: Vec::new(),
            object_id: 0,
            update_id: 0,
            encrypted: false,
            blocks: Vec::new(),
        }
    }

    /// A page as Ozone makes it: one more than asked for in byte order, then sorted by UTF-16 and cut off.
    fn page(names: &BTreeSet<String>, after: Option<&str>, count: usize) -> (Vec<KeyInfo>, bool) {
        let behind = names.iter().filter(|name| after.is_none_or(|after| name.as_str() > after));
        let mut read: Vec<&String> = behind.take(count + 1).collect();
        read.sort_by_key(|name| name.encode_utf16().collect::<Vec<_>>());
        let truncated = read.len() > count;
        (read.into_iter().take(count).map(|name| info(name)).collect(), truncated)
    }

    fn listed(names: &BTreeSet<String>, count: usize) -> Vec<String> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let (names, truncated) = page(names, after.as_deref(), count);
            let settle = if truncated { settled } else { in_order };
            let settled = settle(names, after.as_deref());
            all.extend(settled.into_iter().map(|info| info.name));
            if !truncated {
                return all;
            }
            assert!(all.last() > after.as_ref(), "it goes on nowhere");
            after = all.last().cloned();
        }
    }

    proptest! {
        /// Nothing is left out, listed twice or out of order, where a page has more names than there are with emoji.
        #[test]
        fn every_name_is_listed_once(
            plain in prop::collection::btree_set("[a\u{ff08}]{1,3}", 0..20),
            odd in prop::collection::btree_set("[a\u{ff08}\u{1f980}]{1,3}", 0..5),
            count in 6usize..9,
        ) {
            let names: BTreeSet<String> = plain.into_iter().chain(odd).collect();
            prop_assert_eq!(listed(&names, count), names.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn names_of_one_kind_need_no_more_pages(names in prop::collection::btree_set("[a-c\u{1f980}]{1,3}", 0..40)) {
            prop_assert_eq!(listed(&names, 2), names.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_name_that_was_cut_off_is_not_lost() {
        let names: BTreeSet<String> = ["a", "\u{ff08}", "\u{1f980}"].map(String::from).into();
        // Ozone's page of two has the emoji and not the bracket, which comes before it in bytes.
        let (first, _) = page(&names, None, 2);
        assert_eq!(first.iter().map(|info| info.name.as_str()).collect::<Vec<_>>(), ["a", "\u{1f980}"]);
        assert_eq!(listed(&names, 2), names.into_iter().collect::<Vec<_>>());
    }
}
