use proptest::prelude::*;

use super::*;
use crate::job::{Kind as JobKind, State};
use crate::process::Process;
use crate::progress::{Level, Phase};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn job(number: i64) -> Job {
    let created = NOW + jiff::SignedDuration::from_secs(number);
    Job { process: None, ..Job::new(format!("job-{number:04}"), JobKind::Sync, "/target", created) }
}

fn ended(number: i64) -> Job {
    Job { state: State::Finished, ..job(number) }
}

fn line(number: u64) -> Line {
    Line { at: NOW, level: Level::Info, text: number.to_string() }
}

fn wish(by: &str) -> Cancel {
    Cancel { by: by.into(), at: NOW }
}

fn ids(jobs: &Jobs) -> Vec<String> {
    jobs.all().unwrap().into_iter().map(|job| job.id).collect()
}

fn set_aside(folder: &Path) -> usize {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("jobs.redb.damaged-")).count()
}

#[test]
fn jobs_are_found_by_the_beginning_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    assert_eq!(jobs.find("last").unwrap_err().kind(), Kind::NotFound);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "asking makes no file");
    jobs.add(&[ended(2), ended(1), ended(10)]).unwrap();
    assert_eq!(ids(&jobs), ["job-0010", "job-0002", "job-0001"]);
    for (text, id) in [("last", "job-0010"), ("job-0002", "job-0002"), ("job-001", "job-0010")] {
        assert_eq!(jobs.find(text).unwrap().id, id);
    }
    assert_eq!(jobs.find("job-000").unwrap_err().kind(), Kind::Usage);
    assert_eq!(jobs.find("other").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn the_oldest_ended_ones_go_with_their_logs() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs { jobs_max: 3, ..Jobs::at(folder.path()) };
    // The oldest one runs: it stays.
    jobs.add(&[job(0)]).unwrap();
    for number in 1..6 {
        jobs.add(&[ended(number)]).unwrap();
        jobs.update(&ended(number), &[line(0)]).unwrap();
    }
    assert_eq!(ids(&jobs), ["job-0005", "job-0004", "job-0000"]);
    assert_eq!(jobs.log("job-0003", None).unwrap(), []);
    assert_eq!(jobs.log("job-0004", None).unwrap().len(), 1);
}

#[test]
fn the_last_lines_of_a_log_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    let lines: Vec<Line> = (0..LINES_MAX + 50).map(line).collect();
    jobs.update(&job(1), &lines[..700]).unwrap();
    jobs.update(&job(2), &lines[..1]).unwrap();
    jobs.update(&job(1), &lines[700..]).unwrap();
    let kept = jobs.log("job-0001", None).unwrap();
    assert_eq!((kept.len() as u64, kept[0].1.text.as_str()), (LINES_MAX, "50"));
    assert_eq!(jobs.log("job-0001", Some(kept[LINES_MAX as usize - 2].0)).unwrap().len(), 1);
    assert_eq!(jobs.log("job-0002", None).unwrap().len(), 1);
}

#[test]
fn a_wish_to_end_stays_whatever_the_run_writes() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    let running = Job { process: Some(Process::this()), ..job(1) };
    jobs.add(std::slice::from_ref(&running)).unwrap();
    assert_eq!(jobs.update(&running, &[]).unwrap(), None);
    jobs.cancel("job-0001", &wish("somebody")).unwrap();
    jobs.cancel("job-0001", &wish("somebody else")).unwrap();
    assert_eq!(jobs.wish("job-0001").unwrap(), Some(wish("somebody")));
    assert_eq!(jobs.update(&running, &[]).unwrap(), Some(wish("somebody")));
    assert_eq!(jobs.wish("job-0001").unwrap(), Some(wish("somebody")));
}

#[test]
fn what_is_over_cannot_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    let this = Process::this();
    let dead = Job { process: Some(Process { started: this.started + 1, ..this }), ..job(2) };
    jobs.add(&[ended(1), dead]).unwrap();
    for (id, says) in [("job-0001", "has ended: FINISHED"), ("job-0002", "is gone")] {
        let error = jobs.cancel(id, &wish("somebody")).unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(error.to_string().contains(says), "{error}");
        assert_eq!(jobs.wish(id).unwrap(), None);
    }
    assert_eq!(jobs.cancel("job-0003", &wish("somebody")).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn many_at_once_wait_for_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let jobs = &jobs;
            scope.spawn(move || {
                let job = Job { state: State::Running(Phase::Copying), ..job(thread) };
                for number in 0..10 {
                    jobs.update(&job, &[line(number)]).unwrap();
                    assert!(jobs.get(&job.id).unwrap().is_some());
                }
            });
        }
    });
    assert_eq!(ids(&jobs).len(), 8);
    assert!((0..8).all(|thread| jobs.log(&job(thread).id, None).unwrap().len() == 10));
    assert_eq!(set_aside(folder.path()), 0);
}

#[test]
fn whoever_keeps_it_open_is_waited_for_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    jobs.add(&[ended(1)]).unwrap();
    let open = Database::open(folder.path().join("jobs.redb")).unwrap();
    let waiting = jobs.clone();
    let reader = std::thread::spawn(move || waiting.all());
    std::thread::sleep(Duration::from_millis(300));
    drop(open);
    assert_eq!(reader.join().unwrap().unwrap().len(), 1);
    let open = Database::open(folder.path().join("jobs.redb")).unwrap();
    assert_eq!(jobs.add(&[ended(2)]).unwrap_err().kind(), Kind::Unavailable);
    drop(open);
    assert_eq!(set_aside(folder.path()), 0);
}

#[test]
fn what_cannot_be_written_is_an_error_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("jobs.redb")).unwrap();
    let jobs = Jobs::at(folder.path());
    assert!(jobs.add(&[ended(1)]).is_err() && jobs.all().is_err());
    assert_eq!(set_aside(folder.path()), 0);
    // A folder that is not there is made; where it cannot be, nobody is stopped by it.
    let missing = Jobs::at(&folder.path().join("missing"));
    assert_eq!(missing.all().unwrap(), []);
    missing.add(&[ended(1)]).unwrap();
    assert_eq!(ids(&missing), ["job-0001"]);
    fs::write(folder.path().join("file"), "no folder").unwrap();
    assert!(Jobs::at(&folder.path().join("file/state")).add(&[ended(1)]).is_err());
}

#[test]
fn a_record_of_a_newer_program_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let jobs = Jobs::at(folder.path());
    jobs.add(&[ended(1)]).unwrap();
    let done = jobs.write(false, |transaction| {
        transaction.open_table(JOBS)?.insert("job-0002", b"{\"newer\":true}".as_slice())?;
        Ok(())
    });
    done.unwrap();
    assert_eq!(ids(&jobs), ["job-0001"]);
    assert_eq!(jobs.get("job-0002").unwrap_err().kind(), Kind::Damaged);
    assert_eq!(set_aside(folder.path()), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever became of the file: a run begins with a catalogue that it can write.
    #[test]
    fn a_damaged_file_never_stops_a_run(
        at in 0.0..1.0f64,
        noise in proptest::collection::vec(any::<u8>(), 1..5000),
        cut in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::at(folder.path());
        jobs.add(&[ended(1), ended(2)]).unwrap();
        jobs.update(&ended(2), &[line(1)]).unwrap();
        let path = folder.path().join("jobs.redb");
        let mut bytes = fs::read(&path).unwrap();
        let at = (at * bytes.len() as f64) as usize;
        if cut {
            bytes.truncate(at);
        } else {
            let end = (at + noise.len()).min(bytes.len());
            bytes[at..end].copy_from_slice(&noise[..end - at]);
        }
        fs::write(&path, bytes).unwrap();
        jobs.add(&[ended(3)]).unwrap();
        jobs.update(&ended(3), &[line(1)]).unwrap();
        prop_assert!(ids(&jobs).contains(&"job-0003".to_owned()));
        prop_assert_eq!(jobs.log("job-0003", None).unwrap().len(), 1);
    }
}
