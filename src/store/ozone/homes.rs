//! Which datanodes hold a container: learnt from the Ozone Manager's answers, so that not every object is asked for.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::block::{Block, Node, Replication};

/// Containers that are remembered: some hundred bytes each, some gigabytes of data each.
const CONTAINERS_MAX: usize = 1 << 16;

/// The datanodes of containers.
#[derive(Debug, Default)]
pub(super) struct Homes(RwLock<HashMap<u64, Home>>);

/// Where a container is, and how what is in it is kept.
type Home = (Arc<[Node]>, Replication);

impl Homes {
    /// Remembers where these blocks are. Blocks that need a token are asked for anew each time: it runs out.
    pub(super) fn learn(&self, blocks: &[Block]) {
        for block in blocks {
            if block.nodes.is_empty() || block.token.is_some() || self.knows(block) {
                continue;
            }
            let mut homes = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if homes.len() >= CONTAINERS_MAX {
                homes.clear();
            }
            homes.insert(block.id.container, (block.nodes.clone(), block.replication));
        }
    }

    fn knows(&self, block: &Block) -> bool {
        let homes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        homes.get(&block.id.container).is_some_and(|(nodes, _)| *nodes == block.nodes)
    }

    /// Fills in where the blocks are; false if that is not known of all of them.
    pub(super) fn fill(&self, blocks: &mut [Block]) -> bool {
        let homes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        blocks.iter_mut().all(|block| match homes.get(&block.id.container) {
            Some((nodes, replication)) => {
                block.nodes = nodes.clone();
                block.replication = *replication;
                true
            }
            None => false,
        })
    }

    /// Forgets where these blocks were: they were not there.
    pub(super) fn forget(&self, blocks: &[Block]) {
        let mut homes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for block in blocks {
            homes.remove(&block.id.container);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::BlockId;
    use super::*;

    fn block(container: u64, nodes: &[u16]) -> Block {
        let node = |port: &u16| Node { uuid: port.to_string(), host: "h".into(), ip: "127.0.0.1".into(), port: *port };
        Block {
            id: BlockId { container, local: 1, sequence: 0 },
            length: 1,
            replication: Replication::Whole,
            nodes: nodes.iter().map(node).collect(),
            token: None,
        }
    }

    #[test]
    fn what_was_learnt_is_known_until_it_proves_wrong() {
        let homes = Homes::default();
        let mut wanted = [block(1, &[]), block(2, &[])];
        homes.learn(&[block(1, &[7])]);
        assert!(!homes.fill(&mut wanted), "one of the two is not known");
        homes.learn(&[block(2, &[8, 9]), block(1, &[6]), block(3, &[])]);
        assert!(homes.fill(&mut wanted));
        assert_eq!((wanted[0].nodes[0].port, wanted[1].nodes.len()), (6, 2));
        homes.forget(&wanted[..1]);
        assert!(!homes.fill(&mut wanted));
        homes.learn(&[Block { token: Some("t".into()), ..block(4, &[1]) }]);
        assert!(!homes.fill(&mut [block(4, &[])]), "a token is good for once");
    }
}
