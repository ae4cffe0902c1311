use super::*;
use crate::bounds::MaxDelete;
use crate::hook::{Action, On};

#[test]
fn names_stand_for_urls() {
    let config =
        Config::parse("[store.dr]\nurl = \"s3://b/root/?endpoint=http://h:1\"\n[store.disk]\nurl = \"/mnt/x\"")
            .unwrap();
    assert_eq!(config.resolve("dr:").unwrap(), "s3://b/root/?endpoint=http://h:1");
    assert_eq!(config.resolve("dr:a/b").unwrap(), "s3://b/root/a/b?endpoint=http://h:1");
    assert_eq!(config.resolve("disk:a").unwrap(), "/mnt/x/a");
    assert_eq!(config.resolve("/plain/path").unwrap(), "/plain/path");
    assert_eq!(config.resolve("s3://b/p").unwrap(), "s3://b/p");
    assert!(config.resolve("nowhere:a").is_err());
}

/// The guide's script and its crontab line: the snapshot of the day, replicated, the last seven days kept on both sides.
#[test]
fn a_policy_takes_less_than_ten_lines() {
    let text = r#"
        [policy.bucket1]
        source = "o3://ozone-1/vol1/bucket1"
        target = "o3://ozone-2/vol1/bucket1"
        schedule = "0 0 * * *"
        retention = { daily = 7 }
    "#;
    let config = Config::parse(text).unwrap();
    let [policy] = config.policies.as_slice() else { panic!("{config:?}") };
    let midnight = "2026-11-21T00:00:00Z".parse().unwrap();
    assert_eq!(policy.snapshot_name(midnight).unwrap().as_str(), "snapshot-2026-11-21");
    assert_eq!(policy.settings.keep_source.daily, Some(7));
    assert_eq!(policy.settings.keep_target.daily, Some(7));
    assert_eq!(policy.next_run(midnight).unwrap().timestamp(), "2026-11-22T00:00:00Z".parse().unwrap());
}

#[test]
fn everything_that_can_be_said() {
    let text = r#"
        [store.primary]
        url = "o3://om-primary/vol1"
        [store.dr]
        url = "s3://dr?region=eu-west-1"

        [serve]
        at_once = 3
        listen = "127.0.0.1:9999"

        [metrics]
        textfile_directory = "/var/lib/node_exporter"

        [[hook]]
        on = "failure"
        url = "https://alerts.example/T0K3N"

        [defaults]
        time_zone = "Europe/Berlin"
        schedule = "30 2 * * *"
        ttl = "60d"

        [policy.nightly]
        source = "primary:{bucket}"
        target = "dr:{bucket}"
        buckets = ["photos", "logs"]
        rpo = "26h"
        timeout = "8h"
        max_delete = "10%"
        on_drift = "repair"
        verify = "read"
        memory = "512MiB"
        concurrency = 16
        bandwidth = ["08:00-18:00 mon-fri 50MB", "1GB"]
        retention = { daily = 7, source = { keep_last = 2, daily = 3 } }

        [[policy.nightly.hook]]
        on = ["success", "partial"]
        command = ["/usr/local/bin/notify", "--storage"]
        timeout = "5s"

        [policy.off]
        enabled = false
        source = "/srv/a"
        target = "/srv/b"
        snapshot = "a-%Y%m%d"
        schedule = "@weekly"
        max_delete = 7
    "#;
    let config = Config::parse(text).unwrap();
    let names: Vec<&str> = config.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!(names, ["nightly.logs", "nightly.photos", "off"]);
    assert_eq!((config.at_once, config.listen.port()), (3, 9999));
    let photos = config.policy("nightly.photos").unwrap();
    assert_eq!(photos.source, "o3://om-primary/vol1/photos");
    assert_eq!(photos.target, "s3://dr/photos?region=eu-west-1");
    assert_eq!(photos.settings.schedule.as_ref().unwrap().to_string(), "30 2 * * * Europe/Berlin");
    assert_eq!(photos.settings.keep_source.keep_last, Some(2));
    assert_eq!((photos.settings.keep_source.daily, photos.settings.keep_target.daily), (Some(3), Some(7)));
    assert_eq!(photos.settings.keep_target.keep_last, None);
    assert!(photos.settings.keep_target.ttl.is_some());
    assert_eq!(photos.settings.max_delete, MaxDelete::Percent(10.0));
    let rate = |moment: &str| photos.settings.limits.bandwidth.rate_at(moment.parse().unwrap());
    assert_eq!(
        (rate("2026-11-20T12:00:00+01:00"), rate("2026-11-21T12:00:00+01:00")),
        (Some(50_000_000), Some(1_000_000_000))
    );
    assert_eq!(photos.settings.hooks.len(), 2);
    assert_eq!(photos.settings.hooks[0].on, [On::Failure]);
    assert!(!format!("{:?}", photos.settings.hooks).contains("T0K3N"));
    assert!(matches!(&photos.settings.hooks[1].action, Action::Command(words) if words.len() == 2));
    assert_eq!(config.policy("off").unwrap().settings.max_delete, MaxDelete::Count(7));
    assert!(config.policy("off").unwrap().next_run("2026-11-21T00:00:00Z".parse().unwrap()).is_none());
}

#[test]
fn buckets_by_patterns() {
    let text = r#"
        [policy.site]
        source = "s3://{bucket}?region=x"
        target = "/dr/{bucket}"
        buckets = ["photos", "team-*"]
        except = "team-test"
        rpo = "1d"
        [policy.other]
        source = "/srv/other"
        target = "/dr/team-b/inside"
    "#;
    let mut config = Config::parse(text).unwrap();
    let names = |config: &Config| config.policies.iter().map(|policy| policy.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&config), ["other", "site.photos"]);
    let family = config.families[0].clone();
    let wanted = ["photos", "team-a", "team-test", "mail"].map(|bucket| family.wants(bucket));
    assert_eq!(wanted, [false, true, false, false], "what is named is not looked for");
    config.admit(family.member("team-a").unwrap()).unwrap();
    assert_eq!(names(&config), ["other", "site.photos", "site.team-a"]);
    let found = config.policy("site.team-a").unwrap();
    assert_eq!((found.source.as_str(), found.target.as_str()), ("s3://team-a?region=x", "/dr/team-a"));
    assert_eq!(found.settings.rpo, Some(std::time::Duration::from_secs(86400)));
    // One that would write into another's place is not taken.
    let clash = config.admit(family.member("team-b").unwrap()).unwrap_err();
    assert!(clash.kind() == Kind::Usage && clash.to_string().contains("policy other"), "{clash}");
    for odd in ["", "a/b", "two words", "%2e"] {
        assert_eq!(family.member(odd).unwrap_err().kind(), Kind::Usage);
    }
    assert_eq!(config.chosen("site").unwrap().len(), 2);
    assert_eq!(config.chosen("other").unwrap().len(), 1);
    assert!(config.chosen("sit").is_err());
}

/// A policy with these lines in it; they begin on line 4.
fn with(lines: &str) -> String {
    format!("[policy.a]\nsource = \"/srv/a\"\ntarget = \"/srv/b\"\n{lines}")
}

#[test]
fn broken_files_say_what_is_wrong_and_where() {
    let two = |second: &str| with(&format!("[policy.b]\nsource = \"/srv/c\"\ntarget = \"{second}\""));
    let table: Vec<(String, &[&str])> = vec![
        ("x".into(), &["line 1:"]),
        ("[policy.a\nsource = 1".into(), &["line 1:"]),
        ("[policy.a]\nsource = \"/a\ntarget = \"/b\"".into(), &["line 2:"]),
        ("[policies.a]\n".into(), &["line 1: policies: there is no such field", "did you mean"]),
        ("[store.s3]\nurl = \"/x\"".into(), &["line 1: store.s3: cannot name a store"]),
        (
            "[store.dr]\nuri = \"/x\"".into(),
            &["line 1: store.dr: `url` is missing", "line 2: store.dr.uri: there is no"],
        ),
        ("[store.dr]\nurl = 7".into(), &["line 2: store.dr.url: is a number, not a text in quotes"]),
        ("[store.dr]\nurl = \"s3://\"".into(), &["line 2: store.dr.url:"]),
        ("[policy.a]\ntarget = \"/srv/b\"".into(), &["line 1: policy.a: `source` is missing"]),
        (
            "[policy.a]\nsource = \"gone:x\"\ntarget = \"/b\"".into(),
            &["line 2: policy.a.source: there is no store `gone`"],
        ),
        ("[policy.a]\nsource = \"gs://x\"\ntarget = \"/b\"".into(), &["line 2:", "does not serve gs:// yet"]),
        ("[policy.\"a b\"]\nsource = \"/a\"\ntarget = \"/b\"".into(), &["line 1: policy.a b: cannot name a policy"]),
        (
            "[policy.a]\nsource = \"/srv/a\"\ntarget = \"/srv/a/b\"".into(),
            &["line 1: policy.a: source and target lie in"],
        ),
        (two("/srv/b"), &["line 4: policy.b: its target file:///srv/b is, or overlaps, that of policy a"]),
        (two("/srv/b/c/"), &["line 4: policy.b: its target file:///srv/b/c is, or overlaps, that of policy a"]),
        (with("shedule = \"@daily\""), &["line 4: policy.a.shedule: there is no such field; did you mean `schedule`?"]),
        (with("schedule = \"61 * * * *\""), &["line 4: policy.a.schedule: `61 * * * *` is no schedule"]),
        (with("schedule = \"0 0 30 2 *\""), &["line 4: policy.a.schedule: `0 0 30 2 *` never comes"]),
        (with("time_zone = \"Mars/Olympus\""), &["line 4: policy.a.time_zone: `Mars/Olympus` is no time zone"]),
        (with("snapshot = \"snap/%Y\""), &["line 4: policy.a.snapshot:"]),
        (
            "[policy.a]\nsource = \"o3://om/v01/bucket\"\ntarget = \"/b\"\nsnapshot = \"s-%Y-%m-%dT%H%M\"".into(),
            &["line 2: policy.a.source: Ozone takes no snapshot named s-2026-11-21T0000; use lower-case"],
        ),
        (with("schedule = \"@hourly\""), &["line 1: policy.a: `snapshot` names the run at", "finer pattern"]),
        (
            with("schedule = \"@hourly\"\nsnapshot = \"s-%Y%m%d%H%M\"\ntime_zone = \"Europe/Berlin\""),
            &["line 1: policy.a: `snapshot` names the run at 2027-10-31 02:00 CET", "-%s"],
        ),
        (
            with("retention = { dayly = 7 }"),
            &["line 4: policy.a.retention.dayly: there is no such field; did you mean `daily`?"],
        ),
        (
            with("retention = { daily = -1 }"),
            &["line 4: policy.a.retention.daily: -1 is out of range: from 0 to 100000"],
        ),
        (with("retention = { target = 7 }"), &["line 4: policy.a.retention.target: is a number, not a table"]),
        (with("ttl = \"60 parsecs\""), &["line 4: policy.a.ttl: `60 parsecs` is no length of time: write"]),
        (with("rpo = 26"), &["line 4: policy.a.rpo: is a number, not a text in quotes"]),
        (with("enabled = \"yes\""), &["line 4: policy.a.enabled: is a text, not true or false"]),
        (with("max_delete = \"101%\""), &["line 4: policy.a.max_delete: `101%` is no limit"]),
        (with("on_drift = \"ignore\""), &["line 4: policy.a.on_drift: `ignore` is not one of refuse, repair"]),
        (with("bandwidth = \"fast\""), &["line 4: policy.a.bandwidth: `fast` is no"]),
        (with("bandwidth = [\"08:00-25:00 50MB\"]"), &["line 4: policy.a.bandwidth:", "25:00"]),
        (with("bandwidth = [\"1MB\", \"2MB\"]"), &["line 4: policy.a.bandwidth: `2MB` is a second rate"]),
        (with("buckets = [\"x\"]"), &["line 2: policy.a.source: has no {bucket} in it", "line 3: policy.a.target"]),
        (
            "[policy.a]\nsource = \"/srv/{bucket}\"\ntarget = \"/dr/{bucket}\"".into(),
            &["line 2: policy.a.source: has {bucket} in it, but there are no `buckets`"],
        ),
        (
            "[policy.a]\nsource = \"s3://b/{bucket}\"\ntarget = \"/dr/{bucket}\"\nbuckets = \"*\"".into(),
            &["line 2: policy.a.source: only the names of whole buckets and of directories can be found"],
        ),
        (
            "[policy.a]\nsource = \"/a/{bucket}\"\ntarget = \"/b/{bucket}\"\nbuckets = [\"x\"]\nexcept = \"y\"".into(),
            &["line 1: policy.a: `except` needs a pattern in `buckets`"],
        ),
        (with("except = \"y\""), &["line 1: policy.a: `except` needs a pattern in `buckets`"]),
        (
            "[policy.a]\nsource = \"/a/{bucket}\"\ntarget = \"/b/{bucket}\"\nbuckets = [\"x[\"]".into(),
            &["line 4: policy.a.buckets: `x[` is no glob"],
        ),
        (
            with("[[policy.a.hook]]\non = \"failur\"\nurl = \"https://x/y\""),
            &["line 5: policy.a.hook.on: `failur` is not"],
        ),
        (with("[[policy.a.hook]]\non = \"failure\""), &["line 4: policy.a.hook: has neither `command` nor `url`"]),
        (with("[[policy.a.hook]]\ncommand = \"rm -rf /\""), &["line 5: policy.a.hook.command: is not a list"]),
        (with("[[policy.a.hook]]\nurl = \"s3cret\""), &["line 5: policy.a.hook.url: is no URL that begins with https"]),
        ("[serve]\nat_once = 0".into(), &["line 2: serve.at_once: 0 is out of range: from 1 to 999"]),
        ("[serve]\nlisten = \"everywhere\"".into(), &["line 2: serve.listen: `everywhere` is no address"]),
        (
            "[metrics]\ntextfile_directory = \"prom\"".into(),
            &["line 2: metrics.textfile_directory: `prom` is no absolute"],
        ),
    ];
    assert!(table.len() >= 25);
    for (text, expected) in table {
        let error = Config::parse(&text).expect_err(&text);
        assert_eq!(error.exit_code(), 2, "{text}");
        let message = error.to_string();
        for part in expected {
            assert!(message.contains(part), "{text}\n  gives: {message}\n  not: {part}");
        }
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[test]
fn all_mistakes_are_named_at_once() {
    let text = with("schedule = \"never\"\nrpo = \"x\"\n[policy.b]\nsource = \"/c\"\ntarget = \"/d\"\nenabled = 1\n");
    let message = Config::parse(&text).unwrap_err().to_string();
    let lines: Vec<&str> = message.lines().map(str::trim).collect();
    assert!(lines[0].contains("3 mistakes"), "{message}");
    assert!(lines[1].starts_with("line 4: policy.a.schedule"), "{message}");
    assert!(lines[2].starts_with("line 5: policy.a.rpo"), "{message}");
    assert!(lines[3].starts_with("line 9: policy.b.enabled"), "{message}");
}
