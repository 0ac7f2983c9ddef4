use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

use super::*;
use crate::clock::ManualClock;
use crate::engine::{
    DialBackFailure, Engine, EngineAddress, EngineConstraints, EngineStatus, FailureKind, Owner,
};
use crate::identity::{ModuleType, Role, Roles, ServiceIdentity};
use crate::telemetry::{Suppressed, capture, events};

/// The three lines of the guide, as printed there.
const SEED: &str = include_str!("../../../../tests/data/seed_001_log.jsonl");

/// A JSON object's members in order, repeated ones included.
struct Ordered(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Ordered {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Ordered;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ordered, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Ordered(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

fn members(line: &str) -> Vec<(String, Value)> {
    serde_json::from_str::<Ordered>(line).unwrap().0
}

/// Runs `emit` at `time` and returns the lines it logs.
fn logged(format: Format, time: &str, emit: impl FnOnce()) -> Vec<String> {
    let time: Timestamp = time.parse().unwrap();
    let since_epoch = Duration::from_nanos(u64::try_from(time.as_nanosecond()).unwrap());
    let clock = Arc::new(ManualClock::new(SystemTime::UNIX_EPOCH + since_epoch));
    let (subscriber, lines) = capture::subscriber(format, clock);
    tracing::dispatcher::with_default(&subscriber, emit);
    lines.take()
}

/// No event was suppressed.
const LOGGED: Suppressed = Suppressed {
    count: 0,
    is_mixed: false,
};
const THREE: Suppressed = Suppressed { count: 3, ..LOGGED };

const NOON: &str = "2026-11-21T12:00:00Z";

fn seed_engine(constraints: EngineConstraints) -> Engine {
    Engine {
        id: "0031debd-6130-4b4a-8eaf-7a834555cf33".parse().unwrap(),
        address: EngineAddress::new("user-VirtualBox", 8532).unwrap(),
        constraints,
        status: EngineStatus::New,
        suspect: false,
        status_reason: None,
        dial_back_failure: None,
        owner: Owner {
            deployment: "dpe-dev".into(),
            module: "dpe".into(),
            environment: None,
            fingerprint: "kHSzWkPiZKfSKAgdIkCdXfAAKs7x23jszQLkTOzQTEM".into(),
        },
        held: None,
        registered_at: SystemTime::UNIX_EPOCH,
        over_loopback: false,
        instance: None,
        heartbeat_interval: None,
        last_seen_at: SystemTime::UNIX_EPOCH,
    }
}

fn seed_caller() -> ServiceIdentity {
    let roles = Roles::from_iter([Role::new("IMPERSONATION").unwrap()]);
    ServiceIdentity::new(ModuleType::new("dpe").unwrap(), "dpe-dev", roles)
}

/// The guide's line, with its second `message` taken out and this test's thread put in.
fn expected(line: usize) -> Vec<(String, Value)> {
    // The guide leaves the capabilities out; these are ours.
    let text = SEED.lines().nth(line).unwrap().replace("{ ... }", "{a: b}");
    let mut members = members(&text);
    if let Some(second) = members.iter().rposition(|(name, _)| name == "message")
        && second > 2
    {
        members.remove(second);
    }
    for (name, value) in &mut members {
        if name == "thread_name" {
            *value = std::thread::current().name().unwrap().into();
        }
    }
    members
}

#[test]
fn register_engine_line_is_the_seeds() {
    let pair = ("a".to_owned(), "b".to_owned());
    let capabilities = BTreeMap::from([pair]);
    let constraints = EngineConstraints::new(BTreeMap::new(), capabilities, Vec::new()).unwrap();

    let lines = logged(Format::Json, "2021-04-14T11:26:03.234+02:00", || {
        events::engine_registration(true, &seed_caller(), &seed_engine(constraints), LOGGED);
    });

    assert_eq!(lines.len(), 1);
    assert_eq!(members(&lines[0]), expected(0));
}

#[test]
fn set_engine_status_line_is_the_seeds() {
    let engine = Engine {
        status: EngineStatus::Ready,
        ..seed_engine(EngineConstraints::default())
    };

    let lines = logged(Format::Json, "2021-04-14T11:26:03.804+02:00", || {
        events::set_engine_status(&engine, EngineStatus::New, None, LOGGED);
    });

    assert_eq!(lines.len(), 1);
    assert_eq!(members(&lines[0]), expected(1));
}

#[test]
fn register_line_is_the_seeds() {
    let engine = "7b87a034-536b-4650-979b-62a27c575430".parse().unwrap();

    let lines = logged(Format::Json, "2021-04-14T11:14:37.280+02:00", || {
        events::register(engine, "localhost:8531", LOGGED);
    });

    assert_eq!(lines.len(), 1);
    assert_eq!(members(&lines[0]), expected(2));
}

#[test]
fn every_summary_says_for_how_many_events_it_stands_and_if_they_are_of_several_kinds() {
    let engine = seed_engine(EngineConstraints::default());
    let (id, peer) = (engine.id, "127.0.0.1:1".parse().unwrap());
    let failure = DialBackFailure::new(FailureKind::NotReached, "x");
    let call = events::RejectedCall {
        reason: "KEY_UNKNOWN",
        fingerprint: None,
        peer: None,
        method: "/a.B/Get",
        detail: "x",
        help: "y",
    };
    let all = |n: Suppressed| {
        events::engine_registration(true, &seed_caller(), &engine, n);
        events::engine_registration(false, &seed_caller(), &engine, n);
        events::set_engine_status(&engine, EngineStatus::New, None, n);
        events::engine_check_failed(&engine, &failure, n);
        events::register(id, "dpm", n);
        events::waiting_for_dpm(id, "dpm", "x", "y", n);
        events::register_refused(id, "dpm", (failure.kind, None), ("x", "y"), n);
        events::auth_rejected(&call, true, n);
        events::method_without_rule("/a.B/Get", n);
        events::handler_panicked("/a.B/Get", n);
        events::listener_crowded("x", n);
        events::tls_handshake_failed(peer, "x", n);
        events::bug("x", n);
        events::engine_not_ready(id, "dpm", ("NEW", "x"), None, n);
        events::registry_failed("x", n);
        events::record_passed_over(id, 1, n);
        events::engine_duplicate(&engine, &engine.address, n);
        events::lease_expired(&engine, n);
        events::engine_is_duplicate(id, &engine.address, "dpm", ("x", "y"), n);
    };
    let source = concat!(
        include_str!("../../events.rs"),
        include_str!("../../events/engine.rs"),
        include_str!("../../events/store.rs"),
    );
    let functions = source.matches("suppressed: Suppressed,\n) {").count()
        + source.matches("suppressed: Suppressed) {").count();
    let mixed = Suppressed {
        is_mixed: true,
        ..THREE
    };

    for (suppressed, count, several) in [
        (LOGGED, Value::Null, Value::Null),
        (THREE, 3.into(), Value::Null),
        (mixed, 3.into(), true.into()),
    ] {
        let lines = logged(Format::Json, NOON, || all(suppressed));

        // A registration has two events.
        assert_eq!(lines.len(), functions + 1);
        for line in lines {
            let members: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(members["suppressed"], count, "{line}");
            assert_eq!(members["ofSeveralKinds"], several, "{line}");
            let text = members["message"].as_str().unwrap();
            assert_eq!(text.contains("suppressed=3"), count == 3, "{line}");
        }
    }
}

const HOSTILE: &str = "x\r\n{\"@timestamp\":\"0\"}\u{0}\u{1b}[2K\u{7f}\u{85}\u{2028}\u{202e}\"\\,";

#[test]
fn hostile_text_in_any_field_leaves_one_line_of_known_members() {
    let text = HOSTILE.repeat(5_000);
    let map = BTreeMap::from([(HOSTILE.to_owned(), HOSTILE.repeat(500))]);
    let constraints = EngineConstraints::new(map.clone(), map, vec![HOSTILE.to_owned()]).unwrap();
    let engine = seed_engine(constraints);
    let call = events::RejectedCall {
        reason: &text,
        fingerprint: Some(&text),
        peer: None,
        method: &text,
        detail: &text,
        help: "Pair the two modules.",
    };
    let failure = DialBackFailure::new(FailureKind::NotProved, &*text).with_reason(&*text);

    for format in [Format::Json, Format::Plain, Format::Console] {
        let lines = logged(format, NOON, || {
            events::engine_registration(true, &seed_caller(), &engine, LOGGED);
            events::auth_rejected(&call, true, THREE);
            events::engine_check_failed(&engine, &failure, LOGGED);
            events::set_engine_status(&engine, EngineStatus::New, Some(&text), LOGGED);
            events::waiting_for_dpm(engine.id, &text, &text, &text, LOGGED);
            let refusal = (failure.kind, Some(&*text));
            events::register_refused(engine.id, &text, refusal, (&text, &text), LOGGED);
            tracing::warn!(odd = %text, "{text}");
        });

        assert_eq!(lines.len(), 7);
        for line in &lines {
            assert!(line.len() < 100_000, "{}", line.len());
            assert!(!line.chars().any(char::is_control), "{line}");
            assert!(!line.contains(['\u{2028}', '\u{202e}']), "{line}");
            if format == Format::Json {
                assert_names_are_unique(line);
            }
        }
    }
}

fn assert_names_are_unique(line: &str) {
    let members = members(line);
    let names: std::collections::BTreeSet<_> = members.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), members.len(), "{line}");
    assert_eq!(members[0].0, "@timestamp");
    assert_eq!(members[0].1, "2026-11-21T14:00:00.000+02:00");
    assert_eq!(members.last().unwrap().1, "oneApplication");
}

#[test]
fn event_members_cannot_take_the_names_of_ours() {
    let lines = logged(Format::Json, NOON, || {
        tracing::info!(
            severity = "x",
            application = "y",
            severity_ = 1,
            flag = true,
            "text"
        );
    });

    let members = members(&lines[0]);
    let named = |name: &str| &members.iter().find(|(n, _)| n == name).unwrap().1;
    assert_names_are_unique(&lines[0]);
    assert_eq!(named("severity"), "INFO");
    assert_eq!(named("severity_"), "x");
    assert_eq!(named("severity__"), 1);
    assert_eq!(named("application_"), "y");
    assert_eq!(named("flag"), true);
    assert_eq!(named("message"), "text");
}

#[test]
fn levels_carry_logbacks_numbers() {
    let lines = logged(Format::Json, NOON, || {
        tracing::error!("");
        tracing::warn!("");
        tracing::info!("");
        tracing::debug!("");
    });

    let number = |line: &String| members(line)[6].clone();
    let numbers: Vec<_> = lines.iter().map(number).collect();
    let of = |value: u32| ("level_value".to_owned(), Value::from(value));
    assert_eq!(numbers, [of(40_000), of(30_000), of(20_000), of(10_000)]);
}

#[test]
fn plain_line_names_event_text_and_members() {
    let lines = logged(Format::Console, "2021-04-14T09:26:03.234Z", || {
        events::register(
            "7b87a034-536b-4650-979b-62a27c575430".parse().unwrap(),
            "localhost:8531",
            LOGGED,
        );
        tracing::warn!(target: "h2", streams = 3, "too many");
    });

    assert_eq!(
        lines,
        [
            "11:26:03.234 INFO  register          Engine registered. dpmUrl=localhost:8531",
            "11:26:03.234 WARN  h2                too many streams=3",
        ]
    );
}

#[test]
fn refused_registration_says_its_reason_once() {
    let engine = "7b87a034-536b-4650-979b-62a27c575430".parse().unwrap();

    let lines = logged(Format::Console, NOON, || {
        let refusal = (FailureKind::Refused, Some("KEY_UNKNOWN"));
        events::register_refused(
            engine,
            "localhost:8531",
            refusal,
            ("no such key", "pair"),
            LOGGED,
        );
    });

    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0].matches("KEY_UNKNOWN").count(), 1, "{}", lines[0]);
    assert_eq!(
        lines[0].matches("localhost:8531").count(),
        1,
        "{}",
        lines[0]
    );
}

#[test]
fn side_that_refused_is_named_as_the_module_that_logs_it_sees_it() {
    let engine = seed_engine(EngineConstraints::default());
    for kind in FailureKind::ALL {
        let reason = Some("KEY_UNKNOWN");
        let failure = DialBackFailure::new(kind, "x").with_reason("KEY_UNKNOWN");
        let lines = logged(Format::Json, NOON, || {
            events::engine_check_failed(&engine, &failure, LOGGED);
            events::register_refused(
                engine.id,
                "localhost:8531",
                (kind, reason),
                ("x", "y"),
                LOGGED,
            );
            let known = Some((kind, reason));
            events::engine_not_ready(engine.id, "localhost:8531", ("NEW", "x"), known, LOGGED);
        });

        let sides: Vec<_> = lines
            .iter()
            .flat_map(|line| members(line))
            .filter(|(name, _)| name == "side")
            .map(|(_, side)| side)
            .collect();
        let expected = match kind {
            FailureKind::Refused => ["peer", "peer", "here"],
            _ => ["here", "here", "peer"],
        };
        assert_eq!(sides, expected, "{kind:?}");
    }
}
