//! `countersign explain`.

use countersign::Reason;
use countersign::diagnostic::Code;

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
fn a_reason_comes_with_its_rule_causes_and_mend() {
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

    let text = folder.run("explain --log dpm/log").exits(0).stdout;
    let json = folder
        .run("explain --log dpm/log/spring-boot-logger.json.log -o json")
        .exits(0)
        .json();
    let rules = folder
        .run("token explain --home dpm --log dpm/log -o json")
        .exits(0);

    assert!(
        none.stderr.contains("tells of no refusal"),
        "{}",
        none.stderr
    );
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
    let (folder, _dpm, to_dpm) = with_stranger();
    let mut dpe = Running::start(
        &folder,
        &format!("dpe run --home stranger {ANY_PORT} {to_dpm}"),
    );
    dpe.until(" registerRefused ");

    let text = folder.run("explain --log stranger/log").exits(0).stdout;
    let there = folder.run("explain --log stranger/log -o json").exits(0);
    let here = folder.run("explain --log dpm/log -o json").exits(0);

    let told = "  refused      peer: the DPM does not register this engine\n";
    assert!(text.contains(told), "{text}");
    assert!(text.contains("\nKEY_UNKNOWN: "), "{text}");
    for (run, side, event) in [
        (&there, "peer", "registerRefused"),
        (&here, "here", "authRejected"),
    ] {
        let told = run.json();
        assert_eq!(told["reason"], "KEY_UNKNOWN", "{run:?}");
        let seen = &told["seen"];
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

fn line(event: &str, reason: &str) -> String {
    format!("{{\"eventId\":\"{event}\",\"reason\":\"{reason}\",\"message\":\"m\"}}\n")
}

#[test]
fn the_newest_refusal_counts_whoever_refused_and_says_who() {
    let folder = Folder::new();
    let (mine, full) = ("not called: all keys", "RESOURCE_EXHAUSTED: 10000 engines");
    let refused = "the engine refused our token: ROLE_MISSING: x";
    let no_role = "the engine is not dialled: ROLE_MISSING: x";
    let elsewhere = "the engine is not dialled: ADDRESS_NOT_ALLOWED: 10.0.0.1";
    let unproved = "what answers at h:1 is not proved to be this engine: PROOF_INVALID: x";
    let missing = "what answers at h:1 is not proved to be this engine: PROOF_MISSING: x";
    for (event, reason, word, side) in [
        ("authRejected", "KEY_UNKNOWN", "KEY_UNKNOWN", "here"),
        ("registerRefused", "KEY_REVOKED: x", "KEY_REVOKED", "peer"),
        (
            "registerRefused",
            "PROOF_INVALID: x",
            "PROOF_INVALID",
            "here",
        ),
        ("registerRefused", mine, "", "here"),
        ("registerRefused", full, "", "peer"),
        ("engineNotReady", refused, "ROLE_MISSING", "here"),
        ("engineNotReady", unproved, "PROOF_INVALID", "peer"),
        ("engineNotReady", no_role, "ROLE_MISSING", "peer"),
        ("engineCheckFailed", refused, "ROLE_MISSING", "peer"),
        (
            "engineCheckFailed",
            elsewhere,
            "ADDRESS_NOT_ALLOWED",
            "here",
        ),
        ("engineCheckFailed", missing, "PROOF_MISSING", "here"),
    ] {
        let log = line("authRejected", "TOKEN_EXPIRED")
            + &line("registerRefused", "TOKEN_EXPIRED: x")
            + &line(event, reason)
            + &line("engineNotReady", "connection refused")
            + &line("register", "");
        folder.write("log", log);

        let told = folder.run("explain --log log -o json").exits(0).json();
        let text = folder.run("explain --log log").exits(0).stdout;

        assert_eq!(told["reason"].as_str().unwrap_or_default(), word, "{told}");
        assert_eq!(told["seen"]["side"], side, "{told}");
        assert!(text.contains(&format!("  refused      {side}: ")), "{text}");
    }
}

#[test]
fn proof_that_is_refused_for_its_time_is_mended_at_the_clocks() {
    let folder = Folder::new();
    let clock =
        "PROOF_INVALID: the callee's proof does not hold: its clock is 100 s behind this one";
    let other = "PROOF_INVALID: the callee's proof does not hold: its `nonce` is not this call's";
    let answers = "what answers at h:1 is not proved to be this engine: ";
    for (reason, is_of_clocks) in [(clock, true), (other, false)] {
        for (event, start) in [("registerRefused", ""), ("engineCheckFailed", answers)] {
            folder.write("log", line(event, &format!("{start}{reason}")));

            let told = folder.run("explain --log log -o json").exits(0).json();

            let help = told["help"].as_str().unwrap();
            assert_eq!(help.contains("NTP on both hosts"), is_of_clocks, "{help}");
            assert_eq!(help.contains("another module"), !is_of_clocks, "{help}");
        }
    }
}

#[test]
fn a_word_that_a_stranger_chose_is_no_reason() {
    let folder = Folder::new();
    let status = "it is not the time: no such PROOF_INVALID thing; KEY_REVOKED: x";
    let proxied = "no engine answered: h:1 says KEY_REVOKED: x";
    let mimic = "it says the engine refused our token: KEY_REVOKED: x";
    for (event, reason, told) in [
        ("authRejected", "hello KEY_UNKNOWN", None),
        ("registerRefused", status, Some(status)),
        // These are no refusals: the line before counts.
        ("engineCheckFailed", proxied, Some("before")),
        ("engineNotReady", mimic, Some("before")),
    ] {
        let log = line("registerRefused", "before") + &line(event, reason);
        folder.write("log", log);

        let run = folder.run("explain --log log -o json");

        if let Some(told) = told {
            let told_of = run.exits(0).json();
            assert_eq!(told_of["seen"]["reason"], told, "{told_of}");
            assert_eq!(told_of["seen"]["side"], "peer", "{told_of}");
            assert_eq!(told_of["reason"], serde_json::Value::Null);
        } else {
            let said = run.exits(1).stderr;
            let none = format!("`{reason}`, which is none");
            assert!(said.contains(&none), "{said}");
        }
    }
}
