//! What has to be so after each night, seen with eyes of the test's own where there are any.

use std::collections::{BTreeMap, BTreeSet};

use snapferry::estate::Estate;
use snapferry::job::{Shown, State};
use snapferry::metrics;
use snapferry::progress::Phase;

use crate::harness::model::{Content, assert_equal};
use crate::harness::tree;
use crate::side::{Place, Side};
use crate::{LOST, NIGHTS, QUIET, Story};

impl Story {
    /// What is live, which snapshots there are, and what is in them.
    pub(crate) fn check_sides(&self, number: u32, sealed: bool, content: &Content) {
        let quiet = sealed && QUIET.contains(&number);
        for (side, kept) in self.sides().into_iter().zip(&self.kept) {
            let found = self.runtime.block_on(side.snapshots());
            assert_eq!(found, kept.iter().cloned().collect(), "snapshots of {} after night {number}", side.url());
            // All of them now and then, else one by turns, and the target's newest.
            let all = [QUIET[1], LOST, NIGHTS].contains(&number);
            let turn = number as usize % kept.len();
            for (place, name) in kept.iter().rev().enumerate() {
                if all || place == turn || (place == 0 && std::ptr::eq(side, &self.target)) {
                    let found = self.runtime.block_on(side.snapshot(name));
                    let what = format!("{name} of {} after night {number}", side.url());
                    assert_same(side, found, &self.known(name).content, &what);
                }
            }
            if quiet || sealed && side.bucket().is_none() {
                assert_same(side, side.content(), content, &format!("{} after night {number}", side.url()));
            } else if sealed {
                self.runtime.block_on(side.assert_live_as(kept.last().unwrap()));
            }
            if quiet && side.bucket().is_some() {
                self.check_versions(side, kept, content);
            }
        }
        match (&self.source.place, &self.target.place) {
            (Place::Directory(source), Place::Directory(target)) if sealed => tree::assert_same(source, target),
            _ => {}
        }
    }

    /// There is one version of each content that a key has now or in a snapshot that is kept, and no other.
    fn check_versions(&self, side: &Side, kept: &[String], content: &Content) {
        let mut contents: BTreeMap<String, BTreeSet<&[u8]>> = BTreeMap::new();
        let kept = kept.iter().map(|name| &self.known(name).content);
        for (key, data) in kept.chain([content]).flat_map(|content| &content.0).filter(|(key, _)| !key.ends_with(b"/"))
        {
            contents.entry(String::from_utf8(key.clone()).unwrap()).or_default().insert(data);
        }
        let expected: BTreeMap<String, usize> =
            contents.into_iter().map(|(key, contents)| (key, contents.len())).collect();
        let (versions, markers) = side.versions();
        let differ = |key: &&String| versions.get(*key) != expected.get(*key);
        let keys: BTreeSet<&String> = versions.keys().chain(expected.keys()).filter(differ).collect();
        let named: Vec<_> = keys.into_iter().map(|key| (key, versions.get(key), expected.get(key))).collect();
        assert!(named.is_empty(), "{}: key, versions, and how many there should be: {named:?}", side.url());
        if std::ptr::eq(side, &self.target) {
            let gone = expected.keys().filter(|key| !content.0.contains_key(key.as_bytes())).cloned();
            assert_eq!(markers, gone.collect(), "delete markers of {}", side.url());
        }
    }

    /// What the status screen and the metrics say now.
    pub(crate) fn watch(&self, state: &str) {
        let (name, taken) = self.sealed.as_ref().unwrap();
        let age = self.clock.now().duration_since(*taken).as_secs();
        let is_stale = state == "stale";
        let estate = self.runtime.block_on(Estate::survey(&[self.policy("")], &self.host));
        assert_eq!(estate.stale, is_stale);
        let json = serde_json::to_value(&estate).unwrap();
        let shown = &json["policies"][0];
        let what = (&shown["state"], &shown["sealed"]["snapshot"], &shown["age_seconds"], &shown["rpo_seconds"]);
        assert_eq!(what, (&state.into(), &(**name).into(), &age.into(), &(26 * 3600).into()), "{}", self.clock.now());
        assert_eq!(age > 26 * 3600, is_stale, "the test's own idea of what is stale");
        let next = self.policy("").next_run(self.clock.now()).unwrap().timestamp();
        assert_eq!(shown["next"], next.to_string());

        let text = metrics::text(&estate).unwrap();
        let metric = |name: &str| {
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
            line.trim().parse::<f64>().unwrap()
        };
        assert_eq!(metric("snapferry_last_sealed_age_seconds{policy=\"photos\"}"), age as f64);
        assert_eq!(metric("snapferry_last_sealed_timestamp_seconds{policy=\"photos\"}"), taken.as_second() as f64);
        assert_eq!(metric("snapferry_stale{policy=\"photos\"}"), f64::from(u8::from(is_stale)));
        assert_eq!(metric("snapferry_running{policy=\"photos\"}"), 0.0);
        let in_state = |one: &str| metric(&format!("snapferry_policy_state{{policy=\"photos\",state=\"{one}\"}}"));
        for one in ["fresh", "failing", "stale", "never", "unreachable", "disabled"] {
            assert_eq!(in_state(one), f64::from(u8::from(one == state)), "{one}");
        }
    }

    /// The catalogue has one job for each run that this machine can know of, and how it ended.
    pub(crate) fn check_jobs(&self) {
        let jobs = self.host.jobs.all().unwrap();
        let found: Vec<(String, String)> = jobs
            .into_iter()
            .rev()
            .map(|job| {
                assert_eq!(job.policy.as_deref(), Some("photos"));
                assert!(job.state.is_ended() || matches!(job.state, State::Running(Phase::Copying)), "{job:?}");
                let name = job.snapshot.as_ref().unwrap().to_string();
                (name, Shown::of(job, self.clock.now()).brief())
            })
            .collect();
        let expected: Vec<_> = self.jobs.iter().map(|(name, state)| (name.clone(), (*state).to_owned())).collect();
        assert_eq!(found, expected);
    }
}

/// Directories are content where there are any.
#[track_caller]
fn assert_same(side: &Side, found: Content, expected: &Content, what: &str) {
    let mut expected = expected.clone();
    if side.bucket().is_some() {
        expected.0.retain(|key, _| !key.ends_with(b"/"));
    }
    assert_equal(found, &expected, what);
}
