use std::time::Duration;

use super::*;
use crate::engine::EngineStatus;

fn metrics() -> Metrics {
    Metrics::new("dpm", ["TOKEN_MISSING", "KEY_REVOKED"]).unwrap()
}

/// Returns the value of the series that is written `series`.
fn value(metrics: &Metrics, series: &str) -> Option<String> {
    let text = metrics.render();
    let mut lines = text.lines();
    let line = lines.find(|line| {
        line.strip_prefix(series)
            .is_some_and(|v| v.starts_with(' '))
    })?;
    Some(line.rsplit(' ').next()?.to_owned())
}

const KEYS: TrustedKeys<'_> = ("dpe-dev", "dpe", [2, 1]);

#[test]
fn series_are_there_before_anything_is_counted() {
    let metrics = metrics();
    metrics.trusted([KEYS]);

    for (series, expected) in [
        (
            r#"countersign_auth_requests_total{module="",reason="TOKEN_MISSING",result="refused"}"#,
            "0",
        ),
        (
            r#"countersign_auth_requests_total{module="dpe",reason="KEY_REVOKED",result="refused"}"#,
            "0",
        ),
        (
            r#"countersign_auth_requests_total{module="dpe",reason="",result="accepted"}"#,
            "0",
        ),
        (
            r#"countersign_auth_verify_duration_seconds_count{cache="hit"}"#,
            "0",
        ),
        (
            r#"countersign_token_cache_lookups_total{result="miss"}"#,
            "0",
        ),
        (
            r#"countersign_tokens_issued_total{audience="dpe-dev"}"#,
            "0",
        ),
        (
            r#"countersign_trusted_keys{deployment="dpe-dev",state="active"}"#,
            "2",
        ),
        (
            r#"countersign_trusted_keys{deployment="dpe-dev",state="revoked"}"#,
            "1",
        ),
        (
            r#"countersign_peer_clock_skew_seconds{deployment="dpe-dev"}"#,
            "NaN",
        ),
        ("countersign_config_last_reload_successful", "1"),
        ("countersign_ready", "0"),
    ] {
        assert_eq!(
            value(&metrics, series).as_deref(),
            Some(expected),
            "{series}"
        );
    }
}

#[test]
fn word_that_is_no_reason_makes_no_series() {
    let metrics = metrics();
    let before = metrics.render();

    metrics.refused("<script>", None);

    assert_eq!(metrics.render(), before);
}

#[test]
fn series_of_a_deployment_go_with_it_and_come_with_it() {
    let metrics = metrics();
    let mentioned = || metrics.render().contains("dpe-dev");
    metrics.trusted([KEYS]);
    metrics.clock_measured("dpe-dev", -3.5);
    metrics.token_issued("dpe-dev");
    let skew = r#"countersign_peer_clock_skew_seconds{deployment="dpe-dev"}"#;
    assert_eq!(value(&metrics, skew).as_deref(), Some("-3.5"));

    metrics.trusted([]);
    assert!(!mentioned());
    // A call that began before is counted late.
    metrics.token_issued("dpe-dev");
    assert!(mentioned());
    metrics.trusted([]);
    assert!(!mentioned());

    metrics.trusted([KEYS]);
    let issued = r#"countersign_tokens_issued_total{audience="dpe-dev"}"#;
    assert_eq!(value(&metrics, issued).as_deref(), Some("0"));
    assert_eq!(value(&metrics, skew).as_deref(), Some("NaN"));
}

#[test]
fn series_of_a_module_type_stay_while_a_deployment_or_the_module_itself_is_of_it() {
    let metrics = metrics();
    let other = ("dpe-two", KEYS.1, KEYS.2);
    let accepted = |module| {
        let series = format!(
            r#"countersign_auth_requests_total{{module="{module}",reason="",result="accepted"}}"#
        );
        value(&metrics, &series)
    };
    metrics.trusted([KEYS, other]);
    metrics.accepted("dpe");

    metrics.trusted([other]);
    assert_eq!(accepted("dpe").as_deref(), Some("1"));
    metrics.trusted([]);

    assert_eq!(accepted("dpe"), None);
    assert_eq!(accepted("dpm").as_deref(), Some("0"));
    let stranger =
        r#"countersign_auth_requests_total{module="",reason="TOKEN_MISSING",result="refused"}"#;
    assert_eq!(value(&metrics, stranger).as_deref(), Some("0"));
}

#[test]
fn trust_that_stays_keeps_what_was_measured() {
    let metrics = metrics();
    metrics.trusted([KEYS]);
    metrics.clock_measured("dpe-dev", 12.0);

    metrics.trusted([KEYS]);

    let skew = r#"countersign_peer_clock_skew_seconds{deployment="dpe-dev"}"#;
    assert_eq!(value(&metrics, skew).as_deref(), Some("12"));
}

#[test]
fn skew_from_a_refusal_shows_until_it_fits_or_is_measured() {
    let metrics = metrics();
    let skew = || {
        let series = r#"countersign_peer_clock_skew_seconds{deployment="dpe-dev"}"#;
        value(&metrics, series).unwrap()
    };
    metrics.trusted([KEYS]);

    metrics.clock_estimated("dpe-dev", 600.0);
    assert_eq!(skew(), "600");
    metrics.clock_agrees("dpe-dev");
    assert_eq!(skew(), "NaN");

    metrics.clock_measured("dpe-dev", 0.5);
    metrics.clock_estimated("dpe-dev", -90.0);
    assert_eq!(skew(), "-90");
    metrics.clock_agrees("dpe-dev");
    assert_eq!(skew(), "0.5", "what was measured still holds");

    metrics.clock_estimated("dpe-dev", -90.0);
    metrics.clock_measured("dpe-dev", -91.5);
    assert_eq!(skew(), "-91.5");
}

#[test]
fn samples_are_counted_in_every_bucket_that_holds_them() {
    let metrics = metrics();
    for _ in 0..10_000 {
        metrics.verified_in(0.000_07, Some(false));
    }

    let bucket = |bound| {
        format!(r#"countersign_auth_verify_duration_seconds_bucket{{cache="miss",le="{bound}"}}"#)
    };
    assert_eq!(value(&metrics, &bucket("0.00005")).as_deref(), Some("0"));
    assert_eq!(value(&metrics, &bucket("0.0001")).as_deref(), Some("10000"));
}

#[test]
fn code_that_does_not_exist_counts_as_unknown() {
    let metrics = metrics();
    let method = metrics.of_method(GrpcSide::Server, &["other"; 3]);

    method.handled(16, 0.1);
    method.handled(99, 0.1);

    let handled = |code| {
        format!(
            r#"grpc_server_handled_total{{grpc_code="{code}",grpc_method="other",grpc_service="other",grpc_type="other"}}"#
        )
    };
    assert_eq!(
        value(&metrics, &handled("Unauthenticated")).as_deref(),
        Some("1")
    );
    assert_eq!(value(&metrics, &handled("Unknown")).as_deref(), Some("1"));
    assert_eq!(value(&metrics, &handled("OK")).as_deref(), Some("0"));
}

#[test]
fn methods_whose_names_run_together_are_counted_apart() {
    let metrics = metrics();
    let of = |service: &str, method: &str| {
        metrics.of_method(GrpcSide::Server, &[service, "unary", method])
    };
    of("a.B", "Get").started();
    of("a.BG", "et").started();

    let started = |labels: &str| {
        let series = format!(r#"grpc_server_started_total{{{labels},grpc_type="unary"}}"#);
        value(&metrics, &series)
    };
    let (first, second) = (
        started(r#"grpc_method="Get",grpc_service="a.B""#),
        started(r#"grpc_method="et",grpc_service="a.BG""#),
    );
    assert_eq!(
        (first.as_deref(), second.as_deref()),
        (Some("1"), Some("1"))
    );
}

#[test]
fn engines_are_counted_by_status_and_outcome() {
    let metrics = metrics();
    let engines = metrics.of_engines();

    engines.engines(EngineStatus::Ready, 7);
    engines.registered("not_owned");

    assert_eq!(
        value(&metrics, r#"countersign_engines{status="READY"}"#).as_deref(),
        Some("7")
    );
    assert_eq!(
        value(&metrics, r#"countersign_engines{status="NEW"}"#).as_deref(),
        Some("0")
    );
    let refused = r#"countersign_engine_registrations_total{result="not_owned"}"#;
    assert_eq!(value(&metrics, refused).as_deref(), Some("1"));
}

#[test]
fn every_family_has_help_and_type_and_stands_in_order() {
    let metrics = metrics();
    metrics.trusted([KEYS]);
    drop(metrics.of_engines());
    for side in [GrpcSide::Server, GrpcSide::Client] {
        drop(metrics.of_method(side, &["other"; 3]));
    }
    metrics.signs_with("k", None);
    metrics.certificates([("server", SystemTime::UNIX_EPOCH)]);

    let text = metrics.render();
    let families: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap())
        .collect();

    assert!(families.is_sorted(), "{families:?}");
    assert_eq!(families.len(), 25, "{families:?}");
    for family in families {
        assert!(text.contains(&format!("# HELP {family} ")), "{family}");
    }
}

#[test]
fn signing_key_has_one_series_which_shows_when_it_was_made() {
    const CREATED: &str = "countersign_signing_key_created_timestamp_seconds";
    let metrics = metrics();
    let series = || {
        let text = metrics.render();
        let lines = text.lines().filter(|line| line.starts_with(CREATED));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };

    metrics.signs_with("old", None);
    assert_eq!(series(), [format!("{CREATED}{{kid=\"old\"}} NaN")]);
    let made_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_769_600);
    metrics.signs_with(r#"the "new" \ é"#, Some(made_at));

    let expected = format!(r#"{CREATED}{{kid="the \"new\" \\ é"}} 1763769600"#);
    assert_eq!(series(), [expected]);
}
