//! What an object's content is known by: the blocks that hold it, in a text that goes wherever a version id goes.
//!
//! ```text
//! blocks:CONTAINER.LOCAL.SEQUENCE.LENGTH,…;ATTRIBUTES
//! ```
//! Numbers are decimal, in the order of the object. `;ATTRIBUTES` is a digest of what travels with the bytes, left out
//! where nothing does, so that metadata or tags that alone changed show as a change.

use std::fmt::Write;
use std::sync::Arc;

use super::block::{Block, BlockId, Replication};
use crate::manifest::{Attributes, BLOCKS};
use crate::store::Piece;

/// Hexadecimal digits of the attributes' digest.
const DIGEST_DIGITS: usize = 16;

/// Names content by its blocks and by what travels with them.
pub(super) fn name(blocks: &[Block], attributes: &Attributes) -> Box<str> {
    let mut text = String::with_capacity(BLOCKS.len() + blocks.len() * 40 + DIGEST_DIGITS + 1);
    text.push_str(BLOCKS);
    for (index, block) in blocks.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        let BlockId { container, local, sequence } = block.id;
        let _ = write!(text, "{comma}{container}.{local}.{sequence}.{}", block.length);
    }
    if attributes.beyond_files() {
        text.push(';');
        text.push_str(&digest(attributes)[..DIGEST_DIGITS]);
    }
    text.into()
}

fn digest(attributes: &Attributes) -> String {
    let mut hasher = blake3::Hasher::new();
    for (kind, pairs) in [("h", &attributes.headers), ("m", &attributes.metadata), ("t", &attributes.tags)] {
        let mut pairs: Vec<_> = pairs.iter().collect();
        pairs.sort_unstable();
        for (name, value) in pairs {
            for text in [kind, name, value] {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// The blocks that a content's name lists, without the datanodes that hold them; none if it is no such name.
pub(super) fn blocks(name: &str) -> Option<Vec<Block>> {
    let list = name.strip_prefix(BLOCKS)?;
    let list = list.split_once(';').map_or(list, |(list, _)| list);
    if list.is_empty() {
        return Some(Vec::new());
    }
    list.split(',').map(block).collect()
}

/// The same as pieces, in the order of the object.
pub(super) fn pieces(name: &str) -> Option<Vec<Piece>> {
    let piece = |block: Block| {
        let BlockId { container, local, sequence } = block.id;
        Piece { size: block.length, identity: format!("{container}.{local}.{sequence}").into() }
    };
    Some(blocks(name)?.into_iter().map(piece).collect())
}

/// True when the name says that something travels with the bytes.
pub(super) fn has_attributes(name: &str) -> bool {
    name.contains(';')
}

fn block(text: &str) -> Option<Block> {
    let mut numbers = text.split('.').map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (container, local, sequence, length) = (next()?, next()?, next()?, next()?);
    numbers.next().is_none().then(|| Block {
        id: BlockId { container, local, sequence },
        length,
        replication: Replication::Whole,
        nodes: Arc::default(),
        token: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_block()(numbers in any::<[u64; 4]>()) -> Block {
            let [container, local, sequence, length] = numbers;
            let id = BlockId { container, local, sequence };
            Block { id, length, replication: Replication::Whole, nodes: Arc::default(), token: None }
        }
    }

    proptest! {
        #[test]
        fn a_name_says_which_blocks(list in proptest::collection::vec(any_block(), 0..5), tagged: bool) {
            let tags = if tagged { vec![("a".into(), "b".into())] } else { Vec::new() };
            let name = name(&list, &Attributes { tags, ..Attributes::default() });
            let all = pieces(&name).unwrap();
            for (a, b) in list.iter().zip(&all).flat_map(|a| list.iter().zip(&all).map(move |b| (a, b))) {
                prop_assert_eq!((a.0.id, a.0.length) == (b.0.id, b.0.length), a.1 == b.1);
            }
            prop_assert_eq!(all.len(), list.len());
            prop_assert_eq!(blocks(&name), Some(list));
            prop_assert_eq!(has_attributes(&name), tagged);
        }

        #[test]
        fn any_text_is_read_without_harm(text in "(blocks:)?[0-9.,;a-f]{0,40}") {
            let _ = blocks(&text);
        }
    }

    #[test]
    fn attributes_alone_make_another_name() {
        let pairs = |value: &str| vec![("key".to_owned(), value.to_owned())];
        let plain = Attributes::default();
        let tagged = Attributes { tags: pairs("1"), ..Attributes::default() };
        let described = Attributes { metadata: pairs("1"), ..Attributes::default() };
        let names = [&plain, &tagged, &described, &Attributes { tags: pairs("2"), ..plain.clone() }];
        let names: std::collections::HashSet<_> = names.map(|attributes| name(&[], attributes)).into();
        assert_eq!(names.len(), 4);
        assert_eq!(blocks("v00000001"), None);
        for bad in ["blocks:1", "blocks:1.2.3.4.5", "blocks:,", "blocks:a.b.c.d", "blocks:1.2.3.-4"] {
            assert_eq!(blocks(bad), None, "{bad}");
        }
    }
}
