//! `countersign explain`.

use countersign::Reason;
use countersign::internals::Code;

use super::modules::{ANY_PORT, Running, paired};
use super::support::{Folder, Run};

#[test]
fn every_code_and_every_reason_is_explained() {
    let folder = Folder::new();
    for code in Code::ALL {
        let run = folder.run(&format!("explain {code}")).exits(0);
        assert!(run.stdout.starts_with(code.as_str()), "{}", run.stdout);
    }
    for reason in Reason::ALL {
        let run = folder.run(&format!("explain {reason}")).exits(0);
        assert!(
            run.stdout.starts_with(&format!("{reason}: ")),
            "{}",
            run.stdout
        );
        assert!(
            run.stdout.lines().all(|line| line.chars().count() <= 100),
            "{}",
            run.stdout
        );
    }
}

#[test]
fn commands_of_a_leaked_key_show_no_private_key() {
    let folder = Folder::new();
    let text = folder.run("explain CS0203").exits(0).stdout;
    let lines = text
        .lines()
        .filter_map(|l| l.strip_prefix("    countersign "));
    let commands: Vec<_> = lines.collect();

    let runs: Vec<_> = commands
        .iter()
        .map(|command| folder.run(command).exits(0))
        .collect();

    assert!(runs.len() > 1, "{text}");
    for run in &runs {
        assert!(!run.stdout.contains("\"d\""), "{run:#?}");
    }
    assert!(
        runs.iter().any(|run| run.stdout.contains("\"x\"")),
        "{runs:#?}"
    );
}

#[test]
fn case_and_dashes_do_not_matter() {
    let folder = Folder::new();

    assert!(
        folder
            .run("explain cs0201")
            .exits(0)
            .stdout
            .starts_with("CS0201")
    );
    assert!(
        folder
            .run("explain key-unknown")
            .exits(0)
            .stdout
            .starts_with("KEY_UNKNOWN")
    );
}

#[test]
fn json_has_the_same_words() {
    let folder = Folder::new();

    let code = folder.run("explain CS0202 -o json").exits(0).json();
    let reason = folder
        .run("explain TOKEN_EXPIRED --output json")
        .exits(0)
        .json();

    assert_eq!(
        (&code["code"], &code["severity"]),
        (&"CS0202".into(), &"error".into())
    );
    assert_eq!(reason["reason"], "TOKEN_EXPIRED");
    assert!(reason["help"].as_str().unwrap().contains("NTP"));
}

#[test]
fn an_unknown_word_is_a_wrong_use_and_names_the_nearest() {
    let folder = Folder::new();

    let near = folder.run("explain KEY_UNKNWON").exits(2);
    let far = folder.run("explain banana").exits(2);

    assert_eq!(near.stdout, "");
    assert_eq!(
        near.stderr,
        "error: `KEY_UNKNWON` is neither a code nor a reason\nhelp: did you mean `KEY_UNKNOWN`?\n"
    );
    assert!(far.stderr.contains("CS0101 to CS0406"), "{}", far.stderr);
}

#[test]
fn a_reason_comes_with_its_rule_causes_and_fix() {
    let folder = Folder::new();

    let text = folder.run("explain KEY_UNKNOWN").exits(0).stdout;
    let json = folder.run("explain KEY_UNKNOWN -o json").exits(0).json();

    for part in ["\nThe rule:\n", "\nUsual causes:\n  - ", "\nWhat to do:\n"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(json["rule"].as_str().unwrap().contains("`kid`"));
    assert!(!json["causes"].as_array().unwrap().is_empty());
}

/// Checks that the rule about the key failed and no other.
#[track_caller]
fn only_the_key_fails(rules: &Run) {
    let checks = rules.json()["checks"].clone();
    let failed: Vec<_> = checks
        .as_array()
        .unwrap()
        .iter()
        .filter(|check| check["pass"] == false && check["unknown"] == false)
        .collect();
    assert_eq!(failed.len(), 1, "{checks:#}");
    assert_eq!(failed[0]["name"], "key known");
    assert!(
        failed[0]["help"]
            .as_str()
            .unwrap()
            .contains("countersign pair")
    );
    assert!(
        rules
            .stderr
            .contains("now, in the file of `dpm`: no trusted key")
    );
}

/// A DPM that runs, how to get there, and beside its engine a `stranger` that it does not know.
fn with_stranger() -> (Folder, Running, String) {
    let folder = paired();
    let stranger = "pair dpm=other.properties dpe=stranger/etc/application.properties";
    folder.run(stranger).exits(0);
    let mut dpm = Running::start(&folder, &format!("dpm run --home dpm {ANY_PORT}"));
    let to_dpm = format!(
        "--set ataccama.client.connection.dpm.grpc.port={}",
        dpm.port()
    );
    (folder, dpm, to_dpm)
}

#[test]
fn newest_refusal_of_a_real_log_is_explained_with_its_members() {
    let (folder, mut dpm, to_dpm) = with_stranger();
    let none = folder.run("explain --log dpm/log").exits(1);
    folder
        .run(&format!("engines list --home stranger {to_dpm}"))
        .exits(4);
    dpm.until("authRejected");
    dpm.stop();

    let text = folder.run("explain --log dpm/log").exits(0).stdout;
    let json = folder
        .run("explain --log dpm/log/spring-boot-logger.json.log -o json")
        .exits(0)
        .json();
    let rules = folder
        .run("token explain --home dpm --log dpm/log -o json")
        .exits(0);

    assert!(none.stderr.contains("has no refusal"), "{}", none.stderr);
    assert!(text.starts_with("the newest refusal in dpm/log/"), "{text}");
    assert!(text.contains("\nKEY_UNKNOWN: "), "{text}");
    assert_eq!(json["reason"], "KEY_UNKNOWN");
    let seen = &json["seen"];
    assert_eq!(seen["fingerprint"].as_str().unwrap().len(), 43);
    assert!(seen["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(seen["method"].as_str().unwrap().ends_with("/ListEngines"));
    assert!(
        seen["detail"]
            .as_str()
            .unwrap()
            .starts_with("no trusted key")
    );
    only_the_key_fails(&rules);
    folder.run("explain --log nowhere").exits(3);
    folder.run("explain").exits(2);
}

#[test]
fn a_refusal_is_explained_from_the_log_of_either_side() {
    let (folder, mut dpm, to_dpm) = with_stranger();
    let mut dpe = Running::start(
        &folder,
        &format!("dpe run --home stranger {ANY_PORT} {to_dpm}"),
    );
    dpe.until(" registerRefused ");
    dpe.stop();
    dpm.stop();

    let text = folder.run("explain --log stranger/log").exits(0).stdout;
    let there = folder.run("explain --log stranger/log -o json").exits(0);
    let here = folder.run("explain --log dpm/log -o json").exits(0);

    let expected = "  refused      peer: the DPM does not register this engine\n";
    assert!(text.contains(expected), "{text}");
    assert!(text.contains("\nKEY_UNKNOWN: "), "{text}");
    for (run, side, event) in [
        (&there, "peer", "registerRefused"),
        (&here, "here", "authRejected"),
    ] {
        let refusal = run.json();
        assert_eq!(refusal["reason"], "KEY_UNKNOWN", "{run:?}");
        let seen = &refusal["seen"];
        assert_eq!(
            (&seen["side"], &seen["event"]),
            (&side.into(), &event.into())
        );
    }
    // The log of the one that was refused has nothing for the rules of this module's file.
    folder
        .run("token explain --home stranger --log stranger/log")
        .exits(1);
}

/// A line of a log; members that are empty are left out.
fn line(event: &str, members: &[(&str, &str)]) -> String {
    let mut line = serde_json::json!({"eventId": event, "message": "m"});
    for (name, value) in members.iter().filter(|(_, value)| !value.is_empty()) {
        line[name] = (*value).into();
    }
    format!("{line}\n")
}

/// A line of a failed call between an engine and its DPM.
fn failed(event: &str, kind: &str, side: &str, reason: &str) -> String {
    let members = [("kind", kind), ("side", side), ("reason", reason)];
    line(
        event,
        &[&members[..], &[("detail", "KEY_REVOKED: x")]].concat(),
    )
}

#[test]
fn the_newest_refusal_counts_of_either_side_and_says_which() {
    let folder = Folder::new();
    for (event, kind, side, word) in [
        ("authRejected", "", "here", "KEY_UNKNOWN"),
        ("registerRefused", "REFUSED", "peer", "KEY_REVOKED"),
        ("registerRefused", "NOT_PROVED", "here", "PROOF_INVALID"),
        ("registerRefused", "NOT_DIALLED", "here", ""),
        ("registerRefused", "REFUSED", "peer", ""),
        ("engineNotReady", "REFUSED", "here", "ROLE_MISSING"),
        ("engineNotReady", "NOT_PROVED", "peer", "PROOF_INVALID"),
        ("engineNotReady", "NOT_DIALLED", "peer", "ROLE_MISSING"),
        ("engineCheckFailed", "REFUSED", "peer", "ROLE_MISSING"),
        (
            "engineCheckFailed",
            "NOT_DIALLED",
            "here",
            "ADDRESS_NOT_ALLOWED",
        ),
        ("engineCheckFailed", "NOT_PROVED", "here", "PROOF_MISSING"),
    ] {
        let log = line("authRejected", &[("reason", "TOKEN_EXPIRED")])
            + &failed("registerRefused", "REFUSED", "peer", "TOKEN_EXPIRED")
            + &failed(event, kind, side, word)
            + &failed("engineNotReady", "NOT_REACHED", "peer", "")
            + &line("register", &[]);
        folder.write("log", log);

        let shown = folder.run("explain --log log -o json").exits(0).json();
        let text = folder.run("explain --log log").exits(0).stdout;

        assert_eq!(
            shown["reason"].as_str().unwrap_or_default(),
            word,
            "{shown}"
        );
        assert_eq!(shown["seen"]["side"], side, "{shown}");
        assert!(text.contains(&format!("  refused      {side}: ")), "{text}");
    }
}

#[test]
fn proof_that_is_refused_for_its_time_is_corrected_at_the_clocks() {
    let folder = Folder::new();
    for (kind, is_of_clocks) in [("CLOCKS_DIFFER", true), ("NOT_PROVED", false)] {
        for event in ["registerRefused", "engineCheckFailed", "engineNotReady"] {
            folder.write("log", failed(event, kind, "here", "PROOF_INVALID"));

            let shown = folder.run("explain --log log -o json").exits(0).json();

            let help = shown["help"].as_str().unwrap();
            assert_eq!(help.contains("NTP on both hosts"), is_of_clocks, "{help}");
            assert_eq!(help.contains("another module"), !is_of_clocks, "{help}");
        }
    }
}

#[test]
fn a_word_that_a_stranger_chose_is_no_reason() {
    let folder = Folder::new();
    let mimic = "it says the engine refused our token: KEY_REVOKED: x";
    let of = |event, member| line(event, &[(member, mimic), ("side", "peer")]);
    for (log, detail) in [
        (of("authRejected", "reason"), None),
        (of("registerRefused", "detail"), Some(mimic)),
        // These are not refusals: the line before counts.
        (of("engineCheckFailed", "detail"), Some("before")),
        (of("engineNotReady", "detail"), Some("before")),
    ] {
        let before = [("detail", "before"), ("side", "peer")];
        folder.write("log", line("registerRefused", &before) + &log);

        let run = folder.run("explain --log log -o json");

        if let Some(detail) = detail {
            let shown = run.exits(0).json();
            assert_eq!(shown["seen"]["detail"], detail, "{shown}");
            assert_eq!(shown["seen"]["side"], "peer", "{shown}");
            assert_eq!(shown["reason"], serde_json::Value::Null);
        } else {
            let said = run.exits(1).stderr;
            let unknown = format!("`{mimic}`, which is not in the list");
            assert!(said.contains(&unknown), "{said}");
        }
    }
}
