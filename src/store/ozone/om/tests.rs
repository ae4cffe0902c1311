//! What happens when managers change, connections die and answers are lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use tonic::Status;

use super::fake::{Answer, Fake, bucket, client, nobody};
use super::messages::{self, OmRequest, command};
use super::{DiffOptions, Difference, DifferenceKind};
use crate::error::{Error, Kind};

const PATIENCE: Duration = Duration::from_secs(5);

fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> Kind {
    result.unwrap_err().kind()
}

/// A snapshot, or none.
fn snapshot(there: bool) -> Answer {
    if !there {
        return Answer::refused(44);
    }
    let snapshot = messages::SnapshotInfo { name: Some("one".into()), status: Some(1), ..Default::default() };
    Answer::ok(|response| {
        response.get_snapshot_info = Some(messages::SnapshotResponse { snapshot: Some(snapshot.clone()) });
        response.create_snapshot = Some(messages::SnapshotResponse { snapshot: Some(snapshot) });
    })
}

/// A manager that does what it is asked and keeps silent about the first change.
fn forgetful() -> impl Fn(usize, &OmRequest) -> Answer {
    let done = AtomicBool::new(false);
    move |_, request| {
        let happened = done.load(Ordering::Relaxed);
        match request.cmd_type {
            command::GET_SNAPSHOT_INFO => snapshot(happened),
            command::GET_FILE_STATUS => {
                let key = &request.get_file_status.as_ref().unwrap().key.key;
                if (key == "to") == happened { found(key) } else { Answer::refused(44) }
            }
            _ if !done.swap(true, Ordering::Relaxed) => Answer::Silence,
            command::CREATE_SNAPSHOT => Answer::refused(46),
            command::RENAME_KEYS => {
                let left = request.rename_keys.as_ref().unwrap().args.pairs.clone();
                let Answer::Reply(mut response) = Answer::refused(65) else { unreachable!() };
                response.rename_keys = Some(messages::RenameKeysResponse { left });
                Answer::Reply(response)
            }
            _ => Answer::refused(12),
        }
    }
}

fn found(key: &str) -> Answer {
    let key = Some(messages::KeyInfo { key: key.into(), ..Default::default() });
    let status = messages::FileStatus { key, directory: Some(false) };
    Answer::ok(|response| response.get_file_status = Some(messages::GetFileStatusResponse { status }))
}

#[tokio::test]
async fn the_leader_is_found_and_remembered() {
    let first = Fake::start("om1", |_, _| Answer::not_leader(Some("om3"))).await;
    let second = Fake::start("om2", |_, _| Answer::not_leader(None)).await;
    let third = Fake::start("om3", |_, _| snapshot(true)).await;
    let om = client(&[&first.manager, &second.manager, &third.manager]);
    for _ in 0..3 {
        assert!(om.at("vol1", "photos").snapshot("one").await.unwrap().is_some());
    }
    assert_eq!((first.asked(), second.asked(), third.asked()), (1, 0, 3));
    assert_eq!(om.requests(), 4);
}

#[tokio::test]
async fn a_leader_may_be_told_in_the_answer() {
    let first = Fake::start("om1", |_, _| {
        let Answer::Reply(mut response) = Answer::refused(15) else { unreachable!() };
        response.leader = Some("om2".into());
        Answer::Reply(response)
    })
    .await;
    let second = Fake::start("om2", |_, _| snapshot(true)).await;
    let om = client(&[&first.manager, &second.manager]);
    assert!(om.at("vol1", "photos").snapshot("one").await.unwrap().is_some());
}

#[tokio::test]
async fn managers_that_are_gone_are_passed_over() {
    let dying = Fake::dying().await;
    let silent = Fake::start("om2", |_, _| Answer::Silence).await;
    let leader = Fake::start("om3", |_, _| snapshot(true)).await;
    let om = client(&[&nobody().await, &dying.manager, &silent.manager, &leader.manager]);
    assert!(om.at("vol1", "photos").snapshot("one").await.unwrap().is_some());
    assert!(dying.asked() > 0 && silent.asked() == 1);
}

#[tokio::test]
async fn an_election_is_waited_for() {
    let elected = Arc::new(AtomicUsize::new(0));
    let start = |name: &'static str, other: &'static str| {
        let elected = elected.clone();
        Fake::start(name, move |_, _| match elected.fetch_add(1, Ordering::Relaxed) {
            0..=3 => Answer::not_leader(Some(other)),
            4..=6 => Answer::Fail(Status::internal("a.b.OMLeaderNotReadyException: catching up")),
            _ => snapshot(true),
        })
    };
    let (first, second) = (start("om1", "om2").await, start("om2", "om1").await);
    let om = client(&[&first.manager, &second.manager]);
    assert!(
        om.at("vol1", "photos").create_snapshot("two").await.is_err_and(|error| error.kind() == Kind::AlreadyExists)
    );
    assert_eq!(elected.load(Ordering::Relaxed), 8);
}

#[tokio::test]
async fn the_deadline_ends_it() {
    let om = client(&[&nobody().await, &Fake::dying().await.manager]);
    let begun = SystemTime::now();
    let error = om.at("vol1", "photos").snapshot("one").await.unwrap_err();
    assert!(error.is_retryable() && error.to_string().contains("o3://test/vol1/photos"), "{error}");
    assert!(error.way_out().is_some());
    assert!(begun.elapsed().unwrap() < Duration::from_secs(4));

    let follower = Fake::start("om1", |_, _| Answer::not_leader(Some("elsewhere"))).await;
    let error = bucket(&follower).snapshot("one").await.unwrap_err();
    assert!(error.to_string().contains("does not lead") && error.way_out().is_some(), "{error}");
}

#[tokio::test]
async fn a_snapshot_whose_answer_was_lost_is_ours() {
    let fake = Fake::start("om1", forgetful()).await;
    assert_eq!(bucket(&fake).create_snapshot("one").await.unwrap().name, "one");
    // That of another is not, though it comes between the look and the try.
    let fake = Fake::start("om1", |_, request| match request.cmd_type {
        command::GET_SNAPSHOT_INFO => snapshot(false),
        _ => Answer::refused(46),
    })
    .await;
    assert_eq!(kind(bucket(&fake).create_snapshot("one").await), Kind::AlreadyExists);
}

#[tokio::test]
async fn a_change_whose_answer_was_lost_has_happened() {
    let fake = Fake::start("om1", forgetful()).await;
    bucket(&fake).rename("from", "to").await.unwrap();
    let fake = Fake::start("om1", forgetful()).await;
    bucket(&fake).rename_all(&[("from", "to")]).await.unwrap();
    let fake = Fake::start("om1", forgetful()).await;
    assert!(bucket(&fake).delete("from", false).await.unwrap());
    let fake = Fake::start("om1", forgetful()).await;
    assert!(bucket(&fake).delete_snapshot("one").await.unwrap());
}

#[tokio::test]
async fn a_change_that_was_refused_has_not() {
    let missing = Fake::start("om1", |_, request| match request.cmd_type {
        // It would be taken for a rename that happened, were it asked.
        command::GET_FILE_STATUS => found("to"),
        _ => Answer::refused(12),
    })
    .await;
    assert_eq!(kind(bucket(&missing).rename("from", "to").await), Kind::NotFound);
    assert!(!bucket(&missing).delete("from", false).await.unwrap());

    // The answer was lost and nothing happened: the source is still there.
    let asked = AtomicUsize::new(0);
    let stuck = Fake::start("om1", move |_, request| match request.cmd_type {
        command::GET_FILE_STATUS => found("any"),
        _ if asked.fetch_add(1, Ordering::Relaxed) == 0 => Answer::Silence,
        _ => Answer::refused(11),
    })
    .await;
    assert_eq!(kind(bucket(&stuck).rename("from", "to").await), Kind::AlreadyExists);
}

#[tokio::test]
async fn refusals_have_their_kinds() {
    for (status, expected) in [
        (3, Kind::NotFound),
        (8, Kind::NotFound),
        (38, Kind::Unavailable),
        (48, Kind::Denied),
        (64, Kind::Unsupported),
        (66, Kind::Full),
        (86, Kind::Unsupported),
        (91, Kind::Denied),
        (98, Kind::Full),
        (4711, Kind::Io),
    ] {
        let fake = Fake::start("om1", move |_, _| Answer::refused(status)).await;
        let error = bucket(&fake).snapshot("one").await.unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert!(expected == Kind::Io || error.way_out().is_some(), "{error}");
        // A refusal is an answer: it is not asked for again.
        assert_eq!(fake.asked(), 1);
    }
    let fake = Fake::start("om1", |_, _| Answer::Fail(Status::internal("x.AccessControlException: no"))).await;
    assert_eq!(kind(bucket(&fake).snapshot("one").await), Kind::Denied);
}

#[tokio::test]
async fn of_many_deletes_the_one_that_stayed_is_named() {
    let answer = |code: &'static str| {
        move |_: usize, _: &OmRequest| {
            let Answer::Reply(mut response) = Answer::refused(62) else { unreachable!() };
            let error = |key: &str, code: &str| messages::DeleteKeyError {
                key: Some(key.into()),
                code: Some(code.into()),
                message: None,
            };
            response.delete_keys = Some(messages::DeleteKeysResponse {
                left: Some(messages::DeleteKeysArgs { keys: vec!["a".into(), "b".into()], ..Default::default() }),
                errors: vec![error("a", "KEY_NOT_FOUND"), error("b", code)],
            });
            Answer::Reply(response)
        }
    };
    let fake = Fake::start("om1", answer("KEY_NOT_FOUND")).await;
    bucket(&fake).delete_all(&["a", "b", "c"]).await.unwrap();
    let fake = Fake::start("om1", answer("ACCESS_DENIED")).await;
    let error = bucket(&fake).delete_all(&["a", "b", "c"]).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_key().unwrap().to_string().as_str()), (Kind::Denied, "b"));
}

#[tokio::test]
async fn links_are_followed_to_their_end() {
    let fake = Fake::start("om1", |_, request| {
        let name = request.info_bucket.as_ref().unwrap().bucket.clone();
        let next = match name.as_str() {
            "one" => Some("two"),
            "two" => Some("end"),
            "round" => Some("round"),
            _ => None,
        };
        let bucket = messages::BucketInfo {
            volume: "vol1".into(),
            bucket: name,
            source_volume: next.map(|_| "vol1".into()),
            source_bucket: next.map(Into::into),
            quota_bytes: Some(-1),
            layout: Some(2),
            ..Default::default()
        };
        Answer::ok(|response| response.info_bucket = Some(messages::InfoBucketResponse { bucket: Some(bucket) }))
    })
    .await;
    let om = client(&[&fake.manager]);
    let end = om.bucket("vol1", "one").await.unwrap();
    assert_eq!((end.bucket.as_str(), end.link, end.quota_bytes), ("end", None, None));
    assert_eq!(kind(om.bucket("vol1", "round").await), Kind::Usage);
}

#[tokio::test]
async fn a_server_with_a_limit_of_its_own_loses_no_child() {
    const LIMIT: usize = 20;
    for total in [0, 1, 19, 20, 21, 39, 40, 41, 100] {
        let fake = Fake::start("om1", move |_, request| {
            let list = request.list_status.as_ref().unwrap();
            let all = (0..total).map(|n| format!("d/{n:03}")).skip_while(|name| *name < list.start);
            let statuses = all.take(LIMIT.min(list.count as usize)).map(|name| messages::FileStatus {
                key: Some(messages::KeyInfo { key: name, ..Default::default() }),
                directory: Some(false),
            });
            let statuses = statuses.collect();
            Answer::ok(|response| response.list_status = Some(messages::ListStatusResponse { statuses }))
        })
        .await;
        for count in [1, 10, 20, 1000] {
            let bucket = bucket(&fake);
            let (mut children, mut after) = (Vec::new(), None::<String>);
            loop {
                let page = bucket.list_directory(None, "d", after.as_deref(), count).await.unwrap();
                after = page.children.last().map(|child| child.name.clone()).or(after);
                children.extend(page.children);
                if !page.truncated {
                    break;
                }
            }
            let expected: Vec<_> = (0..total).map(|n| format!("d/{n:03}")).collect();
            assert_eq!(
                children.into_iter().map(|child| child.name).collect::<Vec<_>>(),
                expected,
                "{total} by {count}"
            );
        }
    }
}

/// Answers reports with these statuses in turn, the last one for ever. DONE has one entry.
fn reports(statuses: &'static [i32]) -> (impl Fn(usize, &OmRequest) -> Answer, Arc<[AtomicUsize; 2]>) {
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let seen = counts.clone();
    let reported = AtomicUsize::new(0);
    let script = move |_: usize, request: &OmRequest| match request.cmd_type {
        command::SUBMIT_SNAPSHOT_DIFF => {
            seen[0].fetch_add(1, Ordering::Relaxed);
            Answer::ok(|_| {})
        }
        command::CANCEL_SNAPSHOT_DIFF => {
            seen[1].fetch_add(1, Ordering::Relaxed);
            Answer::ok(|_| {})
        }
        _ => {
            let status = statuses[reported.fetch_add(1, Ordering::Relaxed).min(statuses.len() - 1)];
            let second = request.snapshot_diff.as_ref().unwrap().token.as_deref() == Some("1");
            let entry = messages::DiffEntry { kind: Some(2), source: Some(format!("page-{second}")), target: None };
            let report = messages::DiffReport { entries: vec![entry], token: (!second).then(|| "1".into()) };
            Answer::ok(|response| {
                response.snapshot_diff = Some(messages::SnapshotDiffResponse {
                    report: (status == 3).then_some(report),
                    status: Some(status),
                    reason: Some("the script".into()),
                });
            })
        }
    };
    (script, counts)
}

/// Reads a report to its end; how often it was submitted and cancelled comes with it.
async fn diff(statuses: &'static [i32], patience: Duration) -> (Result<Vec<Difference>, Error>, usize, usize) {
    let (script, counts) = reports(statuses);
    let fake = Fake::start("om1", script).await;
    let mut pages = bucket(&fake).diff_pages("one", "two", DiffOptions::default(), patience);
    let mut all = Vec::new();
    let outcome = loop {
        match pages.next().await {
            Ok(Some(entries)) => all.extend(entries),
            Ok(None) => break Ok(all),
            Err(error) => break Err(error),
        }
    };
    (outcome, counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed))
}

#[tokio::test]
async fn a_diff_comes_to_its_report() {
    for (statuses, submitted) in [(&[1, 2, 2, 3][..], 1), (&[7, 1, 3], 2), (&[6, 3], 2), (&[4, 3], 2)] {
        let (outcome, submits, cancels) = diff(statuses, PATIENCE).await;
        let entries = outcome.unwrap();
        let names: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.source.as_str())).collect();
        assert_eq!(names, [(DifferenceKind::Modify, "page-false"), (DifferenceKind::Modify, "page-true")]);
        assert_eq!((submits, cancels), (submitted, 0), "{statuses:?}");
    }
}

#[tokio::test]
async fn a_diff_that_comes_to_nothing_says_to_list() {
    let brief = Duration::from_millis(150);
    for (statuses, patience, cancelled) in [
        (&[5][..], PATIENCE, 0),
        (&[7], PATIENCE, 0),
        (&[6], PATIENCE, 0),
        (&[99], PATIENCE, 0),
        (&[4], brief, 0),
        (&[1], brief, 1),
        (&[2], brief, 1),
        // Forgotten between two pages.
        (&[3, 7], PATIENCE, 0),
    ] {
        let (outcome, _, cancels) = diff(statuses, patience).await;
        let error = outcome.unwrap_err();
        assert_eq!((error.kind(), cancels), (Kind::Unsupported, cancelled), "{statuses:?}: {error}");
        assert!(error.to_string().contains("one") && error.way_out().unwrap().contains("listing"), "{error}");
    }
}
